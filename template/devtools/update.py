"""`make update`: brings the template's next release in, runs the tests and shows what happened.

`make update ARGS="--data use_flower=false"` hands options on to `copier update`; `--skip-tests` is its own. Ends with 0 only
without conflicts and with passing tests. Standard library alone: it must run when the project's own environment does not.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = ".copier-answers.yml"
COPIER = ["--with", "jinja2-time>=0.2,<1", "--with", "copier-template-extensions>=0.3.4,<1", "copier>=9.19.1,<10"]
TRACEBACK = b"Traceback (most recent call last):"
UNDO = "git reset --hard && git clean -fd"
_MARKER = re.compile(rb"^(<{7,9}|>{7,9})( |$)", re.MULTILINE)
_UNREACHABLE = (
    r"could not read from remote|repository .* (not found|does not exist)|unable to access|does not appear to be a git"
    r"|could not resolve host|connection (refused|timed out)|authentication failed|terminal prompts disabled"
    r"|Local template must be a directory|only supported in git-tracked templates"
)
# What Copier and git say, and what that means here.
_MEANINGS = {
    _UNREACHABLE: "The template cannot be reached: {source}. Check the network and your access to it. If it has moved, write "
    "its new address into `_src_path` in .copier-answers.yml, commit, and try again.",
    r"could not load some Jinja extensions|No module named": "The release needs a Copier extension that this project does "
    "not know of yet. The template's README names the command that brings it along; run that once.",
    r"requires Copier version": "The release needs a newer Copier than this project asks for. The template's README names "
    "the command; run that once.",
    r"(Invalid choice for|Validation error for question) '(?P<question>\w+)': (?P<why>.+)": "--data {question}: {why}",
    r"Unknown revision: '(?P<ref>.*)'": "The template at {source} has no {ref}. Where --vcs-ref names it, name a tag of `git "
    "ls-remote --tags {source}`; where it is `_commit` in .copier-answers.yml, bring the line of your last update back: git log "
    "-p -- .copier-answers.yml",
    r"downgrading from (?P<old>\S+) to (?P<new>\S+)\. ": "This project is of {old}, which comes after the newest release, {new}: "
    'update again when a newer one is out, or go on with pre-releases: make update ARGS="--prereleases"',
}


class Problem(Exception):
    """Why the update cannot start, and what to do about it."""


def git(*arguments: str) -> str:
    """Run git in the project and return what it prints.

    Raises:
        subprocess.CalledProcessError: git failed.
    """
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True)
    return done.stdout.decode(errors="replace").rstrip("\n")


def check() -> str:
    """Return where the template is, if the update can start.

    Raises:
        Problem: it cannot, and why.
    """
    if shutil.which("git") is None:
        raise Problem("There is no git on this machine, and an update is a merge: install git 2.38 or later.")
    try:
        git("rev-parse", "--verify", "--quiet", "HEAD")
    except subprocess.CalledProcessError as error:
        start = 'git init -b main && git add -A && git commit -m "Before the update"'
        raise Problem(f"This project has no commit to merge with. First: {start}") from error
    path = ROOT / ANSWERS
    content = path.read_bytes() if path.exists() else b""
    if _MARKER.search(content):
        raise Problem(
            f"{ANSWERS} has conflict markers. Take the version of your last update: git checkout HEAD {ANSWERS}"
        )
    found = re.search(rb"^_src_path:\s*(.+?)\s*$", content, re.MULTILINE)
    commit = re.search(rb"^_commit:\s*(\S+)", content, re.MULTILINE)
    if commit and commit[1].isdigit():
        raise Problem(f"{ANSWERS}: _commit is read as a number; put it in quotes: _commit: '{commit[1].decode()}'")
    if not found or not commit:
        raise Problem(
            f"{ANSWERS} does not say which release of which template this project is of: its lines _src_path and _commit are "
            f"missing. Bring the file back from git: git log -- {ANSWERS}"
        )
    if git("ls-files", "--unmerged"):
        raise Problem(
            f"An update or a merge has conflicts that are not resolved: resolve them and commit, or undo it: {UNDO}"
        )
    dirty = git("status", "--porcelain", "--untracked-files=normal").splitlines()
    if dirty:
        more = [f"   … and {len(dirty) - 20} more"] if len(dirty) > 20 else []
        listed = "\n".join([*dirty[:20], *more])
        raise Problem(f"Commit or stash these first, so that the update can be undone without touching them:\n{listed}")
    source = found[1].decode(errors="replace").strip("'\"")
    if source.startswith(".") and not (ROOT / source).exists():
        raise Problem(
            f"{ANSWERS}: _src_path is {source}, a path from the folder that the project was copied in; from here there is nothing. "
            "Write the template's absolute path or its address, and commit."
        )
    return source


def report_file() -> Path:
    """Return where the update writes its report."""
    return ROOT / git("rev-parse", "--git-path", f"forge-update/{git('rev-parse', '--show-prefix') or '.'}/report.txt")


def copier_update(arguments: list[str]) -> tuple[int, str]:
    """Run `copier update`; return its exit code and what it wrote to standard error, which is shown as it comes.

    All but a traceback, which `meaning` shows where it knows nothing better.
    """
    uv = _uv()
    # New questions are asked where somebody can answer them.
    answering = ["--skip-answered"] if sys.stdin.isatty() and sys.stdout.isatty() else ["--defaults"]
    process = subprocess.Popen(
        [uv, "tool", "run", *COPIER[:-1], "--from", COPIER[-1], "copier", "update", "--trust", *answering, *arguments],
        cwd=ROOT,
        # Git must not wait for a password that nobody sees it ask for.
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        stderr=subprocess.PIPE,
    )
    said = bytearray()

    def pass_on(stream: "IO[bytes] | None") -> None:
        shown = 0
        while stream and (chunk := os.read(stream.fileno(), 4096)):
            said.extend(chunk)
            traceback = said.find(TRACEBACK)
            end = len(said) if traceback < 0 else traceback
            sys.stderr.buffer.write(said[shown:end])
            sys.stderr.flush()
            shown = max(shown, end)

    reader = threading.Thread(target=pass_on, args=(process.stderr,))
    reader.start()
    code = process.wait()
    reader.join()
    return code, said.decode(errors="replace")


def meaning(said: str, source: str) -> str:
    """Return why Copier failed, in plain words; its own traceback where there are none."""
    for pattern, words in _MEANINGS.items():
        found = re.search(pattern, said, re.IGNORECASE)
        if found:
            return words.format(source=source, **found.groupdict())
    _, marker, traceback = said.partition(TRACEBACK.decode())
    return f"Copier failed.\n{marker}{traceback}" if marker else "Copier failed; why stands above."


def conflicts() -> list[str]:
    """Return the files that somebody must work on before the update is finished."""
    unmerged = git("-c", "core.quotePath=false", "diff", "--name-only", "--diff-filter=U", "--relative").splitlines()
    rejected = git("-c", "core.quotePath=false", "ls-files", "--others", "--exclude-standard", "*.rej").splitlines()
    return [*unmerged, *rejected]


def update(arguments: list[str], *, test: bool) -> int:
    """Update, test and report; return the exit code."""
    source = check()
    report = report_file()
    report.unlink(missing_ok=True)
    code, said = copier_update(arguments)
    changed = bool(git("status", "--porcelain", "--untracked-files=normal"))
    if code:
        print(f"\nupdate: {meaning(said, source)}", file=sys.stderr)
        print(f"update: to undo: {UNDO}" if changed else "update: nothing was changed.", file=sys.stderr)
        return 1
    if not changed:
        print("update: this project is up to date.")
        return 0
    unfinished = conflicts()
    if unfinished:
        print(f"update: CONFLICTS in: {', '.join(unfinished)}", file=sys.stderr)
        print("update: resolve them, run `make check test`, then commit.", file=sys.stderr)
        return 1
    if (ROOT / "uv.lock").exists() and subprocess.run([_uv(), "lock", "--quiet"], cwd=ROOT, check=False).returncode:
        print("update: it merged without conflicts, but uv.lock is out of date: run `uv lock`.", file=sys.stderr)
        return 1
    if not test:
        print("update: merged without conflicts.")
        return 0
    print("update: running the fast tests; `make test-all` runs those with real processes too", flush=True)
    fast = [_uv(), "run", "pytest", "-m", "not processes", *_processes()]
    tested = subprocess.run(fast, cwd=ROOT, check=False).returncode
    # The tests' output has pushed it out of sight.
    print(report.read_text(encoding="utf-8") if report.exists() else "", flush=True)
    if tested:
        print("update: it merged without conflicts, but THE TESTS FAIL: see above.", file=sys.stderr)
        return 1
    print("update: merged without conflicts, and the fast tests pass. Look at it with `git diff HEAD`, then commit it.")
    return 0


def _uv() -> str:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise Problem("There is no uv on this machine: `make update` brings one along.")
    return uv


def _processes() -> list[str]:
    """Return how many processes run the tests, as the Makefile does: a server that is named is one for all."""
    named = os.environ.get("TEST_DATABASE_URL") or os.environ.get("TEST_REDIS_URL")
    return ["-n", "0"] if named else ["-n", "2", "--dist", "loadfile"]


def main() -> None:
    """Update the project."""
    try:
        options = [option for option in sys.argv[1:] if option != "--skip-tests"]
        sys.exit(update(options, test=options == sys.argv[1:]))
    except Problem as problem:
        sys.exit(f"update: {problem}\nupdate: nothing was changed.")


if __name__ == "__main__":
    main()
