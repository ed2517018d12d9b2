"""Pre-commit hook: refuse conflict markers and `.rej` files, which an update or a merge leaves to resolve by hand."""

import re
import subprocess
import sys
from pathlib import Path

# Not a row of =, which is a heading in some formats; it never marks a conflict without the others. Markers have up to nine
# characters, because git writes longer ones if both sides renamed a file.
_MARKER = re.compile(rb"^(<{7,9}|>{7,9}|\|{7,9})( |$)", re.MULTILINE)


def marked(path: Path) -> list[int]:
    """Return the numbers of the lines with a conflict marker."""
    content = path.read_bytes().replace(b"\r\n", b"\n")
    return [content.count(b"\n", 0, found.start()) + 1 for found in _MARKER.finditer(content)]


def rejected(folder: Path) -> list[str]:
    """Return the `.rej` files below `folder`, tracked and untracked, without those that git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.rej"]
    listed = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True).stdout.decode(errors="replace")
    # A deleted file stays in the index until the deletion is added.
    return [name for name in sorted(set(listed.split("\0"))) if name and (folder / name).exists()]


def main() -> None:
    """Check the files named on the command line, and find all `.rej` files."""
    found = [f"{name}:{line}: conflict marker" for name in sys.argv[1:] for line in marked(Path(name))]
    found += [
        f"{name}: an update could not apply these changes; apply them by hand, then delete the file"
        for name in rejected(Path())
    ]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
