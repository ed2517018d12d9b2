"""`make chaos`: on processes of this machine; with ARGS=records, under the load of the API; with ARGS=compose on a Docker engine."""

import sys

from tests.generated.chaos import compose, processes, records

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["compose"]:
        sys.exit(compose.main(arguments[1:]))
    if arguments[:1] == ["records"]:
        sys.exit(records.main(arguments[1:]))
    sys.exit(processes.main(arguments[1:] if arguments[:1] == ["processes"] else arguments))
