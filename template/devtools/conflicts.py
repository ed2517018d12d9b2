"""For pre-commit: refuses what an update or a merge left to be done by hand: conflict markers and `.rej` files."""

import re
import subprocess
import sys
from pathlib import Path

# A row of = alone is a heading in some texts; the others only come in pairs with it. Git's are longer where both sides have
# renamed a file.
_MARKER = re.compile(rb"^(<{7,9}|>{7,9}|\|{7,9})( |$)", re.MULTILINE)


def marked(path: Path) -> list[int]:
    """Return the numbers of the lines with a marker."""
    content = path.read_bytes().replace(b"\r\n", b"\n")
    return [content.count(b"\n", 0, found.start()) + 1 for found in _MARKER.finditer(content)]


def rejected(folder: Path) -> list[str]:
    """Return the `.rej` files below `folder`, added to git or not; what git ignores is nobody's work."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.rej"]
    listed = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True).stdout.decode(errors="replace")
    # One that was deleted stays in the index until that is added.
    return [name for name in sorted(set(listed.split("\0"))) if name and (folder / name).exists()]


def main() -> None:
    """Check the files named on the command line, and look for `.rej` files everywhere."""
    found = [f"{name}:{line}: conflict marker" for name in sys.argv[1:] for line in marked(Path(name))]
    found += [
        f"{name}: a change that an update could not make; work it in, then delete it" for name in rejected(Path())
    ]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
