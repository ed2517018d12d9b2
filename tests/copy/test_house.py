"""The rules of the house: plain files, clean names, few of them, one owner each, nothing behind the copy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pathspec import GitIgnoreSpec

from forge_template import ROOT, working_files
from tests.conftest import Renderer
from tests.copy.sound import files
from tests.copy.test_render import combinations, name

OWNERS = ("template", "seeded", "user")
# These would act on this repository itself without the suffix.
_SUFFIX_TO_HIDE = re.compile(r"(^|/)\.git(ignore|attributes)\.jinja$")


@pytest.fixture(scope="module")
def template_files() -> list[str]:
    return working_files("template")


@pytest.fixture(scope="module")
def owners() -> dict[str, GitIgnoreSpec]:
    listed = yaml.safe_load((ROOT / "owners.yml").read_text(encoding="utf-8"))
    assert tuple(listed) == OWNERS
    return {owner: GitIgnoreSpec.from_lines(patterns) for owner, patterns in listed.items()}


def test_most_template_files_are_plain(template_files: list[str]) -> None:
    jinja = [path for path in template_files if path.endswith(".jinja") and not _SUFFIX_TO_HIDE.search(path)]
    assert len(jinja) <= 0.15 * len(template_files), jinja


def test_suffix_only_where_the_text_changes(template_files: list[str]) -> None:
    for path in template_files:
        text = (ROOT / path).read_text(encoding="utf-8")
        if path.endswith(".jinja") and not _SUFFIX_TO_HIDE.search(path):
            assert "{{" in text or "{%" in text, f"{path} needs no suffix"
        if not path.endswith(".jinja") and path.endswith((".py", ".toml")):
            assert "{%" not in text, f"{path} has Jinja and no suffix"


def test_names_work_on_every_system(template_files: list[str]) -> None:
    assert [path for path in template_files if re.search(r'["|<>:?*\\]', path)] == []


def test_nothing_acts_on_this_repository(template_files: list[str]) -> None:
    special = {".gitignore", ".gitattributes", ".gitmodules", ".python-version", "uv.lock"}
    assert [path for path in template_files if path.rsplit("/", 1)[-1] in special] == []


def test_nothing_happens_behind_the_copy() -> None:
    config = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    assert "_tasks" not in config


def test_standard_profile_is_small(render: Renderer) -> None:
    assert len(files(render({}))) <= 245


@pytest.mark.parametrize("answers", combinations(2), ids=name)
def test_every_file_has_one_owner(
    render: Renderer, owners: dict[str, GitIgnoreSpec], answers: dict[str, object]
) -> None:
    for path in files(render(answers)):
        assert [owner for owner in OWNERS if owners[owner].match_file(path)] in [[owner] for owner in OWNERS], path


def test_every_pattern_is_used(render: Renderer, owners: dict[str, GitIgnoreSpec]) -> None:
    everything = {path for answers in combinations(2) for path in files(render(answers))}
    listed = yaml.safe_load((ROOT / "owners.yml").read_text(encoding="utf-8"))
    unused = [
        pattern
        for patterns in listed.values()
        for pattern in patterns
        if not any(GitIgnoreSpec.from_lines([pattern.lstrip("!")]).match_file(path) for path in everything)
    ]
    assert unused == []


def test_copier_skips_what_is_not_the_templates(render: Renderer, owners: dict[str, GitIgnoreSpec]) -> None:
    """Copier itself must not rewrite a seeded or a user's file, whatever else runs at an update."""
    config = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    skipped = set(config["_skip_if_exists"])
    theirs = {
        path
        for answers in ({}, {"database": "mysql"})
        for path in files(render(answers))
        if owners["seeded"].match_file(path) or owners["user"].match_file(path)
    }
    assert theirs == skipped


def test_git_ignores_secrets_and_only_those(render: Renderer) -> None:
    project = render({})
    ignore = GitIgnoreSpec.from_lines((project / ".gitignore").read_text(encoding="utf-8").splitlines())
    secret = {path for path in files(project) if path.startswith("secret/.env.")}
    assert secret >= {"secret/.env.development", "secret/.env.production", "secret/.env.redis"}
    assert {path for path in files(project) if ignore.match_file(path)} == secret
    assert {(project / path).stat().st_mode & 0o777 for path in secret} == {0o600}
    for created in (
        ".venv/x",
        ".dev/x",
        "celerybeat-schedule",
        "dump.rdb",
        "backup.dump",
        "backup.sql.gz",
        "x/__pycache__/y.pyc",
    ):
        assert ignore.match_file(created), created


@pytest.mark.parametrize("database", ["postgresql", "mysql", "sqlite"])
@pytest.mark.parametrize("use_celery", [True, False])
def test_workflow_of_a_project_has_no_findings(render: Renderer, database: str, use_celery: bool) -> None:
    project = render({"ci": "github", "database": database, "use_celery": use_celery})
    workflows = sorted(map(str, (project / ".github" / "workflows").glob("*.yml")))
    assert workflows
    bin_folder = Path(sys.executable).parent
    for command in ([bin_folder / "actionlint"], [bin_folder / "zizmor", "--offline", "--no-progress"]):
        done = subprocess.run([*command, *workflows], cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_registry_and_no_git_host(render: Renderer) -> None:
    """A lock records a registry's address, and a hook from a git host does not work offline."""
    project = render({"profile": "production"})
    hooks = yaml.safe_load((project / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {entry["repo"] for entry in hooks["repos"]} == {"local"}
    assert "uv.lock" not in files(project)
    own = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {entry["repo"] for entry in own["repos"]} == {"local"}
