"""Backups by hand: `python -m app.features.backup.__main__ list`, `create` or `restore NAME`, for the database in DATABASE_URL."""

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
    """Do what the arguments say and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m app.features.backup.__main__", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the backups in the storage, the newest first")
    commands.add_parser("create", help="make one now")
    restore = commands.add_parser("restore", help="load one into the database, which must be empty")
    restore.add_argument("name", help="as `list` shows it")
    restore.add_argument("--force", action="store_true", help="replace what is in the database")
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
        # After its first line, what a storage raises is for those who write its library.
        reason = str(error).partition("\n")[0]
        print(f"{reason} (the storage is STORAGE_URL={storage_settings.url})", file=sys.stderr)
        return 1
    return 0


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the interpreter's shutdown: a thread of obstore that is just letting go of an object aborts it, with code 134.
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
