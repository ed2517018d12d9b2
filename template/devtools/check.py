"""`make check`: run the pre-commit hooks on every file that git does not ignore, including untracked files."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_AT_ONCE = 500
"""Files for one run of the hooks: the length of a command line is limited."""


def files(root: Path) -> list[str]:
    """Return the files, relative to `root`.

    Raises:
        subprocess.CalledProcessError: `root` is not in a git work tree.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout
    # git lists a file in a merge conflict once for each side, and a deleted file until the deletion is committed.
    return sorted({name for name in map(os.fsdecode, listed.split(b"\0")) if name and os.path.lexists(root / name)})


def main() -> None:
    """Run the hooks; exit with 1 if a hook fails."""
    try:
        every = files(ROOT)
    except (OSError, subprocess.CalledProcessError):
        sys.exit("check: this folder is not a git work tree, which the hooks need. Run: git init -b main && git add -A")
    codes = []
    for start in range(0, len(every), _AT_ONCE):
        command = [
            sys.executable,
            "-m",
            "pre_commit",
            "run",
            *sys.argv[1:],
            "--files",
            *every[start : start + _AT_ONCE],
        ]
        codes.append(subprocess.run(command, cwd=ROOT, check=False).returncode)
    sys.exit(
        "check: the hooks have fixed what they can. Fix the other problems above and run it again." if any(codes) else 0
    )


if __name__ == "__main__":
    main()
