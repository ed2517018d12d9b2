"""Run the project's embedded servers until the input ends: `python -m benchmarks.project.server FOLDER [--postgres]`."""

import json
import sys
from pathlib import Path

from devtools.servers import embedded_servers


def main() -> None:
    """Print where the servers are as one line of JSON, and wait."""
    postgres = "--postgres" in sys.argv
    with embedded_servers(Path(sys.argv[1]), redis=True, postgres=postgres, durable=False) as servers:
        print(json.dumps({"redis_port": servers.redis_port, "database_url": servers.database_url or ""}), flush=True)
        sys.stdin.read()


main()
