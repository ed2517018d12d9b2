"""`make update`: merge the next release of the template, run the tests and print a report.

`make update ARGS="--data use_flower=false"` passes options to `copier update`: it changes an answer, and brings the newest release.
With `--vcs-ref=:current:`, it changes only the answer. Two options are this script's own: `--skip-tests`, and `--if-newer`, which does
nothing if the template has no newer release.
It exits with 0 only if there are no conflicts and the tests pass. It uses only the standard library, because it must run even
if the project's environment is broken.
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
OWN_OPTIONS = ("--skip-tests", "--if-newer")
COPIER = ["--with", "jinja2-time>=0.2,<1", "--with", "copier-template-extensions>=0.3.4,<1", "copier>=9.19.1,<10"]
TRACEBACK = b"Traceback (most recent call last):"
UNDO = "git reset --hard && git clean -fd"
_MARKER = re.compile(rb"^(<{7,9}|>{7,9})( |$)", re.MULTILINE)
_UNREACHABLE = (
    r"could not read from remote|repository .* (not found|does not exist)|unable to access|does not appear to be a git"
    r"|could not resolve host|connection (refused|timed out)|authentication failed|terminal prompts disabled"
    r"|Local template must be a directory|only supported in git-tracked templates"
)
# Patterns in the output of Copier and git, and what to tell the user instead.
_EXPLANATIONS = {
    _UNREACHABLE: "The template is unreachable: {source}. Check the network and your access to it. If it has moved, set "
    "`_src_path` in .copier-answers.yml to its new address, commit, and try again.",
    r"could not load some Jinja extensions|No module named": "The release needs a Copier extension that this project does "
    "not install yet. Run the update command of the template's README once, which installs it.",
    r"requires Copier version": "The release needs a newer Copier than this project installs. Run the update command of the "
    "template's README once.",
    r"(Invalid choice for|Validation error for question) '(?P<question>\w+)': (?P<why>.+)": "--data {question}: {why}",
    r"Unknown revision: '(?P<ref>.*)'": "The template at {source} has no {ref}. If you gave it as --vcs-ref, use a tag of `git "
    "ls-remote --tags {source}`. If it is `_commit` in .copier-answers.yml, restore the line of your last update: git log "
    "-p -- .copier-answers.yml",
    r"downgrading from (?P<old>\S+) to (?P<new>\S+)\. ": "This project has {old}, which is newer than the newest release, {new}. "
    'Update again after the next release, or update to pre-releases: make update ARGS="--prereleases"',
}


class Problem(Exception):
    """The update cannot start; the message has the reason and the fix."""


def git(*arguments: str) -> str:
    """Run git in the project and return what it prints.

    Raises:
        subprocess.CalledProcessError: git failed.
    """
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True)
    return done.stdout.decode(errors="replace").rstrip("\n")


def check() -> str:
    """Check that the update can start, and return the location of the template.

    Raises:
        Problem: the update cannot start.
    """
    if shutil.which("git") is None:
        raise Problem("git is not installed, and an update is a merge. Install git 2.38 or later.")
    try:
        git("rev-parse", "--verify", "--quiet", "HEAD")
    except subprocess.CalledProcessError as error:
        start = 'git init -b main && git add -A && git commit -m "Before the update"'
        raise Problem(f"This project has no commit to merge with. Run first: {start}") from error
    path = ROOT / ANSWERS
    content = path.read_bytes() if path.exists() else b""
    if _MARKER.search(content):
        raise Problem(
            f"{ANSWERS} has conflict markers. Restore the version of your last update: git checkout HEAD {ANSWERS}"
        )
    found = re.search(rb"^_src_path:\s*(.+?)\s*$", content, re.MULTILINE)
    commit = re.search(rb"^_commit:\s*(\S+)", content, re.MULTILINE)
    if commit and commit[1].isdigit():
        raise Problem(f"{ANSWERS}: YAML reads _commit as a number. Put it in quotes: _commit: '{commit[1].decode()}'")
    if not found or not commit:
        raise Problem(
            f"{ANSWERS} does not name the template and its release: _src_path or _commit is missing. Restore the file from "
            f"git: git log -- {ANSWERS}"
        )
    if git("ls-files", "--unmerged"):
        raise Problem(
            f"The conflicts of an update or a merge are not resolved. Resolve them and commit, or undo it: {UNDO}"
        )
    dirty = git("status", "--porcelain", "--untracked-files=normal").splitlines()
    if dirty:
        more = [f"   … and {len(dirty) - 20} more"] if len(dirty) > 20 else []
        listed = "\n".join([*dirty[:20], *more])
        raise Problem(f"Commit or stash these files first, so that undoing the update does not delete them:\n{listed}")
    source = found[1].decode(errors="replace").strip("'\"")
    if source.startswith(".") and not (ROOT / source).exists():
        raise Problem(
            f"{ANSWERS}: _src_path is {source}, a path relative to the folder in which the project was generated. It does not "
            "exist here. Set it to the template's absolute path or address, and commit."
        )
    return source


def report_file() -> Path:
    """Return the path of the report that the update writes."""
    return ROOT / git("rev-parse", "--git-path", f"forge-update/{git('rev-parse', '--show-prefix') or '.'}/report.txt")


def is_newest(arguments: list[str]) -> bool:
    """Return whether the template has no newer release than this project; `arguments` are those of the update.

    If Copier cannot find out, the answer is no: the update then reports the reason.

    Raises:
        Problem: the update is not one to the newest release.
    """
    if any(re.match(r"--vcs-ref\b|-r", argument) for argument in arguments):
        raise Problem(
            "--if-newer looks for the newest release, and --vcs-ref names another one: leave one of them out."
        )
    prereleases = ["--prereleases"] if not {"--prereleases", "-g"}.isdisjoint(arguments) else []
    command = [_uv(), "tool", "run", "--from", COPIER[-1], "copier", "check-update", "--quiet", *prereleases]
    return subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, check=False).returncode == 0


def copier_update(arguments: list[str]) -> tuple[int, str]:
    """Run `copier update`; return its exit code and its output on stderr, which is also passed on immediately.

    A traceback is not passed on: `explain` prints it only if it has no better explanation.
    """
    uv = _uv()
    # Ask new questions only in a terminal.
    answering = ["--skip-answered"] if sys.stdin.isatty() and sys.stdout.isatty() else ["--defaults"]
    process = subprocess.Popen(
        [uv, "tool", "run", *COPIER[:-1], "--from", COPIER[-1], "copier", "update", "--trust", *answering, *arguments],
        cwd=ROOT,
        env=_environment(),
        stderr=subprocess.PIPE,
    )
    output = bytearray()

    def pass_on(stream: "IO[bytes] | None") -> None:
        shown = 0
        while stream and (chunk := os.read(stream.fileno(), 4096)):
            output.extend(chunk)
            traceback = output.find(TRACEBACK)
            end = len(output) if traceback < 0 else traceback
            sys.stderr.buffer.write(output[shown:end])
            sys.stderr.flush()
            shown = max(shown, end)

    reader = threading.Thread(target=pass_on, args=(process.stderr,))
    reader.start()
    code = process.wait()
    reader.join()
    return code, output.decode(errors="replace")


def explain(output: str, source: str) -> str:
    """Return why Copier failed and what to do, or its traceback if the reason is unknown."""
    for pattern, explanation in _EXPLANATIONS.items():
        found = re.search(pattern, output, re.IGNORECASE)
        if found:
            return explanation.format(source=source, **found.groupdict())
    _, marker, traceback = output.partition(TRACEBACK.decode())
    return f"Copier failed.\n{marker}{traceback}" if marker else "Copier failed; see its output above."


def conflicts() -> list[str]:
    """Return the files with conflicts, and the `.rej` files."""
    unmerged = git("-c", "core.quotePath=false", "diff", "--name-only", "--diff-filter=U", "--relative").splitlines()
    rejected = git("-c", "core.quotePath=false", "ls-files", "--others", "--exclude-standard", "*.rej").splitlines()
    return [*unmerged, *rejected]


def update(arguments: list[str], *, test: bool, if_newer: bool) -> int:
    """Update, run the tests and print the report; return the exit code."""
    if not {"--pretend", "-n"}.isdisjoint(arguments):
        raise Problem(
            "--pretend cannot show what an update changes, as it merges nothing. To update only if there is a newer release, use "
            f"--if-newer; `copier check-update` only looks for one. To see the changes, update, then undo it: {UNDO}"
        )
    source = check()
    if if_newer and is_newest(arguments):
        print("update: the template has no newer release.")
        return 0
    report = report_file()
    report.unlink(missing_ok=True)
    code, output = copier_update(arguments)
    changed = bool(git("status", "--porcelain", "--untracked-files=normal"))
    if code:
        print(f"\nupdate: {explain(output, source)}", file=sys.stderr)
        print(f"update: to undo it: {UNDO}" if changed else "update: nothing was changed.", file=sys.stderr)
        return 1
    if not changed:
        print("update: this project is up to date.")
        return 0
    unfinished = conflicts()
    if unfinished:
        print(f"update: CONFLICTS in: {', '.join(unfinished)}", file=sys.stderr)
        # uv cannot lock a pyproject.toml with conflict markers.
        print(
            "update: resolve them, run `uv sync`, which also refreshes uv.lock, and `make check test`;\n"
            "update: then `git add -A` and commit.",
            file=sys.stderr,
        )
        return 1
    if (ROOT / "uv.lock").exists() and subprocess.run([_uv(), "lock", "--quiet"], cwd=ROOT, check=False).returncode:
        print("update: merged without conflicts, but `uv lock` failed: uv.lock is out of date.", file=sys.stderr)
        return 1
    if not test:
        print("update: merged without conflicts.")
        return 0
    print("update: running the fast tests; `make test-all` also runs those that start processes", flush=True)
    fast = [_uv(), "run", "pytest", "-m", "not processes", *_processes()]
    tested = subprocess.run(fast, cwd=ROOT, check=False).returncode
    # Again, because the output of the tests has scrolled it away.
    print(report.read_text(encoding="utf-8") if report.exists() else "", flush=True)
    if tested:
        print(
            "update: merged without conflicts, but THE TESTS FAIL: see above. If they fail at your last commit too (undo, make test),\n"
            "update: the update is not the cause.",
            file=sys.stderr,
        )
        return 1
    print(
        "update: merged without conflicts, and the fast tests pass. Review the changes with `git diff HEAD`, then commit them."
    )
    return 0


def _uv() -> str:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise Problem("uv is not installed. `make update` installs it into .dev/.")
    return uv


def _environment() -> dict[str, str]:
    # git must not wait for a password at a prompt that nobody sees.
    return {**os.environ, "GIT_TERMINAL_PROMPT": "0"}


def _processes() -> list[str]:
    """Return the pytest options for parallel processes, as in the Makefile: processes cannot share a server that you name."""
    named = os.environ.get("TEST_DATABASE_URL") or os.environ.get("TEST_REDIS_URL")
    return ["-n", "0"] if named else ["-n", "2", "--dist", "loadfile"]


def main() -> None:
    """Update the project."""
    try:
        given = sys.argv[1:]
        options = [option for option in given if option not in OWN_OPTIONS]
        sys.exit(update(options, test="--skip-tests" not in given, if_newer="--if-newer" in given))
    except Problem as problem:
        sys.exit(f"update: {problem}\nupdate: nothing was changed.")


if __name__ == "__main__":
    main()
