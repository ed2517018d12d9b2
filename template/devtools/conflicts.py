"""For pre-commit: refuses files with conflict markers that an update or a merge left."""

import re
import sys
from pathlib import Path

# A row of = alone is a heading in some texts; the other two only come in pairs with it.
_MARKER = re.compile(rb"^(<{7}|>{7}|\|{7})( |$)", re.MULTILINE)


def marked(path: Path) -> list[int]:
    """Return the numbers of the lines with a marker."""
    content = path.read_bytes().replace(b"\r\n", b"\n")
    return [content.count(b"\n", 0, found.start()) + 1 for found in _MARKER.finditer(content)]


def main() -> None:
    """Check the files named on the command line."""
    found = [f"{name}:{line}: conflict marker" for name in sys.argv[1:] for line in marked(Path(name))]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
