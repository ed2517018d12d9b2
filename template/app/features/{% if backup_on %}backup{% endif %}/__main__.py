"""Back up and restore the database of DATABASE_URL: `python -m app.features.backup list|create|restore NAME`."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from obstore.exceptions import BaseError

from app.core.config.database import database_settings
from app.core.logging import configure_logging
from app.features.backup.errors import BackupFailed
from app.features.backup.service import create_backup, list_backups, restore_backup
from app.features.storage.config import storage_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m app.features.backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the backups, the newest first")
    commands.add_parser("create", help="back up the database now")
    restore = commands.add_parser("restore", help="load a backup into the database, which must be empty")
    restore.add_argument("name", help="the name of the backup, as `list` prints it")
    restore.add_argument("--force", action="store_true", help="delete everything in the database first")
    chosen = parser.parse_args(arguments)
    configure_logging()
    url = database_settings.sqlalchemy_url
    try:
        if chosen.command == "list":
            for backup in asyncio.run(list_backups()):
                print(f"{backup.name}  {backup.size:,} bytes")
        elif chosen.command == "create":
            print(asyncio.run(create_backup(url)).name)
        else:
            asyncio.run(restore_backup(chosen.name, url, force=chosen.force))
            print(f"{chosen.name} is restored into {url}")
    except BackupFailed as error:
        print(error, file=sys.stderr)
        return 1
    except (BaseError, OSError) as error:
        # The first line has the reason; the rest are details of obstore.
        reason = str(error).partition("\n")[0]
        print(f"{reason} (STORAGE_URL={storage_settings.url})", file=sys.stderr)
        return 1
    return 0


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # Skip the interpreter's shutdown: a thread of obstore that still releases an object aborts it with code 134.
    os._exit(code)


if __name__ == "__main__":
    _exit(main())
