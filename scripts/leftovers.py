"""Refuse what a merge leaves behind: conflict markers and `.rej` files. Called by pre-commit with file names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

# A line of seven equals signs alone is also a heading's underline; the two others are not.
_MARKER = re.compile(rb"(<{7}|>{7}|\|{7})( .*)?$")


def leftovers(names: Iterable[str]) -> list[str]:
    """Return a sentence for each leftover in these files."""
    found = []
    for name in names:
        if name.endswith((".rej", ".orig")):
            found.append(f"{name}: a rejected change; apply it by hand, then delete the file")
            continue
        lines = Path(name).read_bytes().splitlines()
        found.extend(
            f"{name}:{number}: a conflict marker" for number, line in enumerate(lines, 1) if _MARKER.match(line)
        )
    return found


if __name__ == "__main__":
    found = leftovers(sys.argv[1:])
    print("\n".join(found))
    sys.exit(bool(found))
