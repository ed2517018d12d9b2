"""Whether a process is healthy: `python -I app/probe.py api|worker|beat` ends with 0 or, saying why, with 1.

Standard library alone, so that it costs milliseconds.
"""

import sys
import urllib.error
import urllib.request

ADDRESS = "http://127.0.0.1:8000/health"


def problem(what: str) -> str | None:
    """Return why `what` is not healthy, or None."""
    if what != "api":
        return None
    try:
        with urllib.request.urlopen(ADDRESS, timeout=3):
            return None
    except (urllib.error.URLError, OSError) as error:
        return f"{ADDRESS}: {error}"


if __name__ == "__main__":
    found = problem(sys.argv[1])
    if found:
        print(found)
        sys.exit(1)
