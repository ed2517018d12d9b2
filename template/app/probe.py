"""Check this container's process: `python -I app/probe.py api|worker|beat` prints one line and exits with 0 or 1.

Health checks run it every few seconds, so it imports only the standard library and nothing of the application.
"""

import os
import socket
import sys
import time

MAX_AGE = 30.0
"""Maximum age of a heartbeat in seconds; worker and beat write one every 5 s."""

TIMEOUT = 3.0


def api_problem(port: int) -> str | None:
    """Return why the API on this machine's `port` is unhealthy, or None if GET /health returns 200."""
    request = b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
            connection.sendall(request)
            # The status line may arrive in several packets.
            with connection.makefile("rb") as response:
                status = response.readline(200).split()
    except OSError as error:
        return f"port {port}: {error}"
    code = status[1].decode("ascii", "replace") if len(status) > 1 else "nothing"
    return None if code == "200" else f"GET /health returned {code}"


def heartbeat_problem(what: str) -> str | None:
    """Return why this container's `worker` or `beat` is unhealthy, or None if its heartbeat is recent."""
    path = os.path.join(heartbeat_folder(), f"{what}.heartbeat")  # noqa: PTH118
    try:
        age = time.time() - os.stat(path).st_mtime  # noqa: PTH116
    except OSError as error:
        return f"no heartbeat yet: {error}"
    return None if age <= MAX_AGE else f"the last heartbeat is {age:.0f} s old"


def heartbeat_folder() -> str:
    """Return `HEALTH_FOLDER`, or the system's folder for temporary files if it is not set."""
    folder = os.environ.get("HEALTH_FOLDER")
    if folder:
        return folder
    import tempfile  # noqa: PLC0415

    return tempfile.gettempdir()


def main(arguments: list[str]) -> int:
    """Print one line and return the exit code."""
    match arguments:
        case ["api"]:
            problem = api_problem(8000)
        case ["api", port] if port.isdigit():
            problem = api_problem(int(port))
        case ["worker" | "beat" as what]:
            problem = heartbeat_problem(what)
        case _:
            problem = "usage: python -I app/probe.py api [PORT] | worker | beat"
    print(problem or "ok")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
