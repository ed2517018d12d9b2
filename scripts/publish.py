"""Publish the release that CHANGELOG.md names first: its tag, the release on GitHub, an example project and the site.

`build` writes the example and the site into a folder. It runs what packages bring, so it must have no credentials. `push` has a
token: it uses only the standard library, and takes the tag, the notes and the archive from this repository. Each can run again after
it failed half way: what is there already stays as it is, and a tag is never moved. The workflow `Release` runs both, in separate jobs.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from forge_template import NOT_RELEASED, ROOT, git, project_environment, released_versions

# Without workflows: GitHub refuses to let a workflow's token push them.
ANSWERS = ("profile=production", "ci=none")
BRANCHES = ("example", "site")

_BOT = {
    "GIT_AUTHOR_NAME": "github-actions[bot]",
    "GIT_AUTHOR_EMAIL": "41898282+github-actions[bot]@users.noreply.github.com",
    "GIT_COMMITTER_NAME": "github-actions[bot]",
    "GIT_COMMITTER_EMAIL": "41898282+github-actions[bot]@users.noreply.github.com",
}


class NotPublished(Exception):
    """What keeps the release from being published."""


def notes(changelog: str, version: str) -> str:
    """Return the section of a version, without its title."""
    _, title, rest = changelog.partition(f"\n## [{version}] - ")
    if not title:
        raise NotPublished(f"CHANGELOG.md has no section ## [{version}] - YYYY-MM-DD.")
    return re.split(r"^## ", rest.partition("\n")[2], maxsplit=1, flags=re.MULTILINE)[0].strip() + "\n"


def released_commit(root: Path, archive: Path) -> str:
    """Return the commit that an archive is of, which is the one before the commit that added it."""
    added = git(root, "log", "--diff-filter=A", "--format=%H", "-1", "--", str(archive.relative_to(root))).strip()
    if not added:
        raise NotPublished(f"{archive.name} is not committed.")
    commit = git(root, "rev-parse", f"{added}^").strip()
    differing = _differences(root, commit, archive)
    if differing:
        raise NotPublished(f"{archive.name} is not of the commit before its own: {', '.join(differing[:5])} differ.")
    return commit


def _differences(root: Path, commit: str, archive: Path) -> list[str]:
    """Return the files in which an archive and a commit differ. Their bytes may: git and zlib have versions.

    The archives of earlier releases have folders that are left out today.
    """
    with tempfile.TemporaryDirectory() as scratch:
        expected = Path(scratch) / "expected.tar"
        git(root, "archive", "--format=tar", f"--output={expected}", commit)
        contents = []
        for path in (expected, archive):
            with tarfile.open(path) as tar:
                members = {
                    member.name: (member.linkname, tar.extractfile(member))
                    for member in tar
                    if not member.isdir() and member.name.partition("/")[0] not in NOT_RELEASED
                }
                contents.append({name: (link, file and file.read()) for name, (link, file) in members.items()})
    one, other = contents
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def tag_releases(root: Path) -> None:
    """Tag the commit of each archive that has no tag here."""
    for archive in sorted((root / "tests" / "releases").glob("v*.tar.gz")):
        tag = archive.name.removesuffix(".tar.gz")
        if not git(root, "tag", "--list", tag):
            git(root, "tag", tag, released_commit(root, archive))


def newest_release(root: Path) -> str:
    """Return the tag of the newest release, after tagging the commits of all releases here."""
    tag = f"v{released_versions((root / 'CHANGELOG.md').read_text(encoding='utf-8'))[0]}"
    archive = root / "tests" / "releases" / f"{tag}.tar.gz"
    if not archive.exists():
        raise NotPublished(f"tests/releases has no {archive.name}: run `make release`, and commit it.")
    tag_releases(root)
    if git(root, "rev-parse", f"{tag}^{{commit}}").strip() != released_commit(root, archive):
        raise NotPublished(f"{tag} is another commit than the one that {archive.name} is of. A tag is never moved.")
    return tag


def build(root: Path, folder: Path, address: str) -> None:
    """Write the example and the site of the newest release into `folder`."""
    tag = newest_release(root)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="forge-publish-") as scratch:
        template = Path(scratch) / "template"
        git(root, "-c", "advice.detachedHead=false", "clone", "--quiet", "--branch", tag, str(root), str(template))
        write_example(template, tag, address, folder / "example")
        write_site(template, folder / "site")
    # Last: `push` refuses a folder without it.
    (folder / "tag").write_text(tag, encoding="utf-8")


def write_example(template: Path, tag: str, address: str, target: Path) -> None:
    """Render the project that the branch `example` shows."""
    answers = [f"--data={answer}" for answer in ANSWERS]
    copier = [sys.executable, "-m", "copier", "copy", "--trust", "--defaults", "--quiet", f"--vcs-ref={tag}", *answers]
    # The workflow makes the folder a public artifact.
    without_secrets = "--exclude=secret/.env*"
    subprocess.run([*copier, without_secrets, str(template), str(target)], env=project_environment(), check=True)
    # It is rendered from a temporary folder.
    recorded = target / ".copier-answers.yml"
    text = re.sub(r"(?m)^_src_path: .*$", lambda _: f"_src_path: {address}", recorded.read_text(encoding="utf-8"))
    recorded.write_text(text, encoding="utf-8")


def write_site(template: Path, target: Path) -> None:
    """Build the documentation."""
    subprocess.run(["make", "docs"], cwd=template, env=project_environment(), check=True)
    if not (template / "site").is_dir():
        raise NotPublished("`make docs` wrote no folder site/.")
    shutil.copytree(template / "site", target)
    # Otherwise GitHub Pages runs Jekyll on it.
    (target / ".nojekyll").touch()


def push(root: Path, folder: Path, remote: str) -> Iterator[str]:
    """Publish the newest release with what `build` wrote; yield a line for each part, also for one that exists."""
    tag = newest_release(root)
    built = folder / "tag"
    if not built.exists() or built.read_text(encoding="utf-8") != tag:
        raise NotPublished(f"{folder} has no complete build of {tag}: run `build` first.")
    yield push_tags(root, remote)
    yield publish_release(root, tag)
    for branch in BRANCHES:
        yield push_branch(folder / branch, branch, tag, remote)


def push_tags(root: Path, remote: str) -> str:
    """Push the tags of releases that the remote does not have."""
    # A line for what an annotated tag points to comes after the line of the tag.
    listed = re.findall(r"^(\w+)\trefs/tags/([^^\n]+)", git(root, "ls-remote", "--tags", remote), re.MULTILINE)
    existing = {tag: commit for commit, tag in listed}
    missing = []
    for archive in sorted((root / "tests" / "releases").glob("v*.tar.gz")):
        tag = archive.name.removesuffix(".tar.gz")
        commit = git(root, "rev-parse", f"{tag}^{{commit}}").strip()
        if tag not in existing:
            missing.append(tag)
        elif existing[tag] != commit:
            raise NotPublished(f"{tag} is {existing[tag]} at {remote}, but {commit} here. A tag is never moved.")
    if missing:
        git(root, "push", "--quiet", "--atomic", remote, *(f"refs/tags/{tag}" for tag in missing))
    return f"tags: pushed {', '.join(missing)}" if missing else "tags: all exist"


def publish_release(root: Path, tag: str) -> str:
    """Publish the release on GitHub with its notes and its archive, or complete one that was begun."""
    archive = root / "tests" / "releases" / f"{tag}.tar.gz"
    viewed = subprocess.run(
        ["gh", "release", "view", tag, "--json=assets,isDraft"], capture_output=True, text=True, check=False
    )
    if viewed.returncode:
        # If the reason is another than that there is none, this fails and says so.
        text = notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), tag.removeprefix("v"))
        _gh("create", tag, str(archive), "--verify-tag", f"--title={tag}", f"--notes={text}")
        return "release: created"
    release = json.loads(viewed.stdout)
    missing = archive.name not in [asset["name"] for asset in release["assets"]]
    if missing:
        _gh("upload", tag, str(archive))
    if release["isDraft"]:
        _gh("edit", tag, "--draft=false")
    return "release: completed" if missing or release["isDraft"] else "release: exists"


def _gh(command: str, *arguments: str) -> None:
    subprocess.run(["gh", "release", command, *arguments], check=True)


def push_branch(content: Path, branch: str, tag: str, remote: str) -> str:
    """Commit a folder on top of a branch of the remote, less what its own .gitignore lists, once for each release."""
    with tempfile.TemporaryDirectory(prefix="forge-publish-") as scratch:
        extra = {**_BOT, "GIT_DIR": scratch, "GIT_WORK_TREE": str(content)}

        def run(*arguments: str) -> str:
            return git(content, *arguments, extra=extra).strip()

        run("init", "--quiet")
        parents: list[str] = []
        if run("ls-remote", remote, f"refs/heads/{branch}"):
            run("fetch", "--quiet", "--depth=1", remote, f"refs/heads/{branch}")
            published = run("log", "-1", "--format=%s", "FETCH_HEAD").removeprefix("Forge v")
            if _numbers(published) >= _numbers(tag.removeprefix("v")):
                return f"{branch}: has {published}"
            parents = ["-p", run("rev-parse", "FETCH_HEAD")]
        run("add", "--all")
        commit = run("commit-tree", run("write-tree"), *parents, "-m", f"Forge {tag}")
        run("push", "--quiet", remote, f"{commit}:refs/heads/{branch}")
    return f"{branch}: pushed"


def _numbers(version: str) -> tuple[int, ...]:
    """Return what orders versions; a branch whose last commit names none is older than all."""
    return tuple(map(int, version.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", version) else ()


def main() -> None:
    """Build or push."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build", help="write the example and the site into a folder")
    builder.add_argument("folder", type=Path)
    builder.add_argument("--address", required=True, help="where users find this repository")
    pusher = commands.add_parser("push", help="publish the release, the example and the site")
    pusher.add_argument("folder", type=Path)
    pusher.add_argument("--remote", required=True, help="the repository to push to")
    options = parser.parse_args()
    try:
        if options.command == "build":
            build(ROOT, options.folder.resolve(), options.address)
        else:
            for line in push(ROOT, options.folder.resolve(), options.remote):
                print(line, flush=True)
    except NotPublished as error:
        sys.exit(f"publish: {error}")


if __name__ == "__main__":
    main()
