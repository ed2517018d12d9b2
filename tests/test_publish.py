"""What the workflow `Release` publishes: once, from the tagged commit, and complete after a failure half way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import publish
import pytest

from forge_template import ROOT, git
from tests.conftest import Renderer

CHANGELOG = """\
# Changelog

## [1.1.0] - 2026-02-02

### Added
- A page.

## [1.0.0] - 2026-01-01

The first.
"""
COPIER = """\
_subdirectory: template
profile: {type: str, default: standard}
ci: {type: str, default: github}
"""
MAKEFILE = "docs:\n\t@mkdir -p site && cp page.md site/index.html\n"
ADDRESS = "https://git.example.com/forge"
# Keeps releases in a file, as GitHub would, and fails at the command in $GH_FAILS.
GH = f"""#!{sys.executable}
import json, os, pathlib, sys
assert sys.argv[1] == "release"
command, tag, *rest = sys.argv[2:]
store = pathlib.Path(os.environ["GH_STORE"])
releases = json.loads(store.read_text()) if store.exists() else {{}}
log = pathlib.Path(os.environ["GH_STORE"] + ".log")
log.open("a").write(command + "\\n")
if command == os.environ.get("GH_FAILS"):
    sys.exit("HTTP 502")
if command == "view":
    if tag not in releases:
        sys.exit("release not found")
    print(json.dumps(releases[tag]))
elif command == "create":
    assert tag not in releases
    [notes] = [option.partition("=")[2] for option in rest if option.startswith("--notes=")]
    releases[tag] = {{
        "assets": [{{"name": pathlib.Path(rest[0]).name}}],
        "isDraft": False,
        "notes": notes,
    }}
elif command == "upload":
    releases[tag]["assets"].append({{"name": pathlib.Path(rest[0]).name}})
elif command == "edit":
    assert rest == ["--draft=false"]
    releases[tag]["isDraft"] = False
store.write_text(json.dumps(releases))
"""


class Forge:
    """A small template repository with a remote, and its releases on GitHub."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "forge"
        self.remote = folder / "remote.git"
        self.built = folder / "built"
        self.store = folder / "releases.json"
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(self.remote))
        git(folder, "init", "--quiet", "--initial-branch=main", str(self.root))
        self.write("copier.yml", COPIER)
        self.write("Makefile", MAKEFILE)
        self.write("tests/some.py", "x = 1\n")
        self.write("template/{{ _copier_conf.answers_file }}.jinja", "{{ _copier_answers | to_nice_yaml }}")
        self.write("template/{% if ci == 'github' %}workflow.yml{% endif %}", "on: push\n")
        self.write("template/.gitignore.jinja", "secret/.env*\n{# #}")
        self.write("template/secret/.env", "KEY=random\n")

    def write(self, path: str, content: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")

    def commit(self, message: str) -> str:
        git(self.root, "add", "--all")
        git(self.root, "commit", "--quiet", "--message", message)
        return git(self.root, "rev-parse", "HEAD").strip()

    def release(self, version: str) -> str:
        """Release what is there, as `make release` and a commit do; return the commit that is released."""
        sections = CHANGELOG.partition(f"## [{version}]")
        self.write("CHANGELOG.md", f"# Changelog\n\n{sections[1]}{sections[2]}")
        self.write("page.md", f"The page of {version}\n")
        released = self.commit(version)
        archive = self.root / "tests" / "releases" / f"v{version}.tar.gz"
        archive.parent.mkdir(exist_ok=True)
        git(self.root, "archive", f"--output={archive}", "HEAD", "--", ".", ":(exclude)tests")
        self.commit("Keep the archive")
        # What comes after a release is no part of it.
        self.write("page.md", "Unreleased\n")
        self.commit("Continue")
        git(self.root, "push", "--quiet", str(self.remote), "main")
        return released

    def publish(self) -> list[str]:
        publish.build(self.root, self.built, ADDRESS)
        return list(publish.push(self.root, self.built, str(self.remote)))

    def refs(self) -> dict[str, str]:
        """Return what the remote has."""
        lines = git(self.remote, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return dict(line.split(" ") for line in lines)

    def files(self, branch: str) -> set[str]:
        return set(git(self.remote, "ls-tree", "-r", "--name-only", branch).splitlines())


@pytest.fixture
def forge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forge:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "gh").write_text(GH, encoding="utf-8")
    (tools / "gh").chmod(0o755)
    made = Forge(tmp_path)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GH_STORE", str(made.store))
    return made


def test_a_release_is_published_from_its_commit(forge: Forge) -> None:
    released = forge.release("1.0.0")
    forge.publish()
    refs = forge.refs()
    assert refs["refs/tags/v1.0.0"] == released
    assert json.loads(forge.store.read_text()) == {
        "v1.0.0": {"assets": [{"name": "v1.0.0.tar.gz"}], "isDraft": False, "notes": "The first.\n"}
    }
    assert git(forge.remote, "show", "site:index.html") == "The page of 1.0.0\n"
    assert not (forge.built / "example" / "secret" / ".env").exists()
    # No secret, and no workflow, which GitHub would refuse.
    assert forge.files("example") == {".copier-answers.yml", ".gitignore"}
    answers = git(forge.remote, "show", "example:.copier-answers.yml")
    assert f"_src_path: {ADDRESS}\n" in answers
    assert "_commit: v1.0.0\n" in answers
    assert "profile: production\n" in answers


def test_publishing_again_changes_nothing(forge: Forge) -> None:
    forge.release("1.0.0")
    forge.publish()
    before = forge.refs(), forge.store.read_text()
    assert forge.publish() == ["tags: all exist", "release: exists", "example: has 1.0.0", "site: has 1.0.0"]
    assert (forge.refs(), forge.store.read_text()) == before


@pytest.mark.parametrize("failing", ["tag", "release", "example", "site"])
def test_a_release_that_failed_half_way_is_completed(
    forge: Forge, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge.release("1.0.0")
    hook = forge.remote / "hooks" / "update"
    hook.write_text(
        f'#!/bin/sh\ncase "$1" in refs/tags/v*) ref=tag;; *) ref="${{1##*/}}";; esac\ntest $ref != {failing}\n'
    )
    hook.chmod(0o755)
    monkeypatch.setenv("GH_FAILS", "create" if failing == "release" else "")
    with pytest.raises(subprocess.CalledProcessError):
        forge.publish()
    hook.unlink()
    monkeypatch.delenv("GH_FAILS")
    forge.publish()
    assert {"refs/tags/v1.0.0", "refs/heads/example", "refs/heads/site"} <= set(forge.refs())
    assert list(json.loads(forge.store.read_text())) == ["v1.0.0"]


@pytest.mark.parametrize("missing", [{"assets": [], "isDraft": False}, {"assets": [], "isDraft": True}])
def test_a_release_that_was_begun_on_github_is_completed(forge: Forge, missing: dict[str, object]) -> None:
    forge.release("1.0.0")
    forge.store.write_text(json.dumps({"v1.0.0": missing}))
    assert "release: completed" in forge.publish()
    assert json.loads(forge.store.read_text()) == {"v1.0.0": {"assets": [{"name": "v1.0.0.tar.gz"}], "isDraft": False}}


def test_the_next_release_is_a_commit_on_top(forge: Forge) -> None:
    forge.release("1.0.0")
    forge.publish()
    before = forge.refs()
    forge.release("1.1.0")
    forge.publish()
    after = forge.refs()
    for branch in ("example", "site"):
        assert git(forge.remote, "rev-parse", f"{branch}^").strip() == before[f"refs/heads/{branch}"]
    assert after["refs/tags/v1.0.0"] == before["refs/tags/v1.0.0"]
    assert json.loads(forge.store.read_text())["v1.1.0"]["notes"] == "### Added\n- A page.\n"


def test_an_older_release_does_not_replace_a_newer_one(forge: Forge) -> None:
    forge.release("1.0.0")
    publish.build(forge.root, forge.built, ADDRESS)
    older = forge.built.rename(forge.built.with_name("older"))
    root = shutil.copytree(forge.root, forge.root.with_name("older-forge"))
    forge.release("1.1.0")
    with pytest.raises(publish.NotPublished, match=r"no complete build of v1\.1\.0"):
        list(publish.push(forge.root, older, str(forge.remote)))
    forge.publish()
    before = forge.refs()
    assert list(publish.push(root, older, str(forge.remote)))[2:] == ["example: has 1.1.0", "site: has 1.1.0"]
    assert forge.refs() == before


def test_a_release_that_was_never_tagged_is_tagged_with_the_next(forge: Forge) -> None:
    first, second = forge.release("1.0.0"), forge.release("1.1.0")
    forge.publish()
    refs = forge.refs()
    assert (refs["refs/tags/v1.0.0"], refs["refs/tags/v1.1.0"]) == (first, second)


@pytest.mark.parametrize("fetched", [False, True])
@pytest.mark.parametrize("annotated", [False, True])
def test_a_tag_is_never_moved(forge: Forge, fetched: bool, annotated: bool) -> None:
    forge.release("1.0.0")
    git(forge.root, "tag", *(["--annotate", "--message", "Mine"] if annotated else []), "v1.0.0", "HEAD")
    git(forge.root, "push", "--quiet", str(forge.remote), "v1.0.0")
    if not fetched:
        git(forge.root, "tag", "--delete", "v1.0.0")
    before = forge.refs()
    with pytest.raises(publish.NotPublished, match="never moved"):
        forge.publish()
    assert forge.refs() == before
    assert not forge.store.exists()


def test_an_archive_of_another_commit_is_refused(forge: Forge) -> None:
    forge.release("1.0.0")
    archive = forge.root / "tests" / "releases" / "v1.1.0.tar.gz"
    archive.write_bytes((archive.parent / "v1.0.0.tar.gz").read_bytes())
    forge.write("CHANGELOG.md", CHANGELOG)
    forge.commit("1.1.0 and an archive of 1.0.0")
    with pytest.raises(publish.NotPublished, match=r"page\.md differ"):
        forge.publish()
    assert set(forge.refs()) == {"refs/heads/main"}


def test_a_version_without_an_archive_is_refused(forge: Forge) -> None:
    forge.release("1.0.0")
    forge.write("CHANGELOG.md", CHANGELOG)
    forge.commit("1.1.0")
    with pytest.raises(publish.NotPublished, match="make release"):
        forge.publish()


@pytest.mark.parametrize("target", ["docs:\n\t@false\n", "docs:\n\t@true\n"])
def test_nothing_is_published_of_a_build_that_failed(forge: Forge, target: str) -> None:
    forge.write("Makefile", target)
    forge.release("1.0.0")
    with pytest.raises((subprocess.CalledProcessError, publish.NotPublished)):
        publish.build(forge.root, forge.built, ADDRESS)
    with pytest.raises(publish.NotPublished, match="run `build` first"):
        list(publish.push(forge.root, forge.built, str(forge.remote)))
    assert set(forge.refs()) == {"refs/heads/main"}


def test_the_example_of_this_template_has_no_secret_and_no_workflow(render: Renderer, tmp_path: Path) -> None:
    project = render(dict(answer.split("=") for answer in publish.ANSWERS))
    assert (project / "secret" / ".env.production").exists()
    remote = tmp_path / "remote.git"
    git(tmp_path, "init", "--quiet", "--bare", str(remote))
    publish.push_branch(project, "example", "v1.0.0", str(remote))
    files = git(remote, "ls-tree", "-r", "--name-only", "example").splitlines()
    assert {"app/main.py", "secret/env.production.example"} <= set(files)
    assert [path for path in files if path.startswith((".github/", "secret/.env"))] == []


def test_each_archive_of_this_repository_is_of_its_commit() -> None:
    """Those of earlier releases have folders that a new one leaves out."""
    for archive in sorted((ROOT / "tests" / "releases").glob("v*.tar.gz")):
        assert publish.released_commit(ROOT, archive)
