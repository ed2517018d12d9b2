"""`make check`: runs the hooks on every file that git does not ignore, also on new ones that it does not track yet."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_AT_ONCE = 500
"""Files for one run of the hooks: a command line has an end."""


def files(root: Path) -> list[str]:
    """Return the files, relative to the project's folder.

    Raises:
        subprocess.CalledProcessError: this is no git work tree.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout
    # A file in a merge conflict is listed once for each side, a deleted one until that is committed.
    return sorted({name for name in map(os.fsdecode, listed.split(b"\0")) if name and os.path.lexists(root / name)})


def main() -> None:
    """Run the hooks, and exit with 1 if one of them finds something."""
    try:
        every = files(ROOT)
    except (OSError, subprocess.CalledProcessError):
        sys.exit("The hooks need git: git init -b main && git add -A")
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
    sys.exit("check: mend what is named above and run it again; what a hook could mend, it has." if any(codes) else 0)


if __name__ == "__main__":
    main()
