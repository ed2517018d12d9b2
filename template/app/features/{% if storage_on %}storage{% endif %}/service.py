"""Files that the API and the workers share: in a local folder, or in a bucket of an S3-compatible service.

The functions of obstore do the work: `obstore.put(store(), checked("files", name), content)`, `get`, `list`, `delete` and
their `_async` forms, the same for both. https://developmentseed.org/obstore/
"""

import functools
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from stat import S_ISREG
from typing import TYPE_CHECKING

import structlog
from obstore.store import LocalStore, S3Store

from app.features.storage.config import storage_settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

FILES = "files"
"""The folder of what users store, with a folder for each owner."""

UNFINISHED_AFTER = timedelta(days=1)
"""How long nothing is written to a file before it counts as broken off; a slow upload is written 5 MiB at a time."""

_SEGMENT = re.compile(r"\w[\w.+@ -]{0,126}(?<![. ])")
# 255 is what file systems take; a file that is being written has a few more.
_MAX_BYTES = 240
# What obstore writes to before a file is complete, which is then moved to its place.
_UNFINISHED = re.compile(r".+#\d+")
# Windows opens a device where a file has such a name, with any suffix.
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
_MARKS = {"Mn", "Mc"}
_logger = structlog.get_logger(__name__)


class InvalidFileName(ValueError):
    """The name of a file could lead elsewhere, or does not work everywhere."""


@functools.cache
def store() -> LocalStore | S3Store:
    """Return what `STORAGE_URL` names. A local folder is made if it is missing."""
    config = storage_settings
    if not config.is_bucket:
        return LocalStore(config.folder, mkdir=True)
    bucket, _, prefix = config.url.removeprefix("s3://").partition("/")
    options: S3Config = {"region": config.region}
    if config.access_key_id:
        options["access_key_id"] = config.access_key_id
        options["secret_access_key"] = config.secret_access_key.get_secret_value()
    if config.endpoint:
        options["endpoint"] = config.endpoint
    client: ClientConfig = {
        "allow_http": config.endpoint.startswith("http://"),
        # For a silent server, not for a whole answer, which takes as long as whoever downloads it.
        "read_timeout": timedelta(seconds=30),
        "timeout": timedelta(days=1),
    }
    return S3Store(bucket, prefix=prefix or None, config=options, client_options=client)


def checked(*parts: str) -> str:
    """Return the path of a file in the storage, each part of it one folder deeper and checked: callers choose names.

    Raises:
        InvalidFileName: a part is empty, longer than 127 characters or 240 bytes, holds other than letters, digits, spaces and `._+@-`,
            starts with a dot, a space or a sign, ends with a dot or a space, or is the name of a device of Windows.
    """
    return "/".join(_checked(part) for part in parts)


def delete_unfinished() -> int:
    """Delete what processes that were killed have left of files in the local folder, and return how many there were.

    A bucket keeps the parts of such files where nobody sees them: a rule of its lifecycle deletes them.
    """
    if storage_settings.is_bucket:
        return 0
    limit = (datetime.now(UTC) - UNFINISHED_AFTER).timestamp()
    deleted = size = 0
    for path in storage_settings.folder.rglob("*#*"):
        try:
            found = path.lstat()
            if _UNFINISHED.fullmatch(path.name) and S_ISREG(found.st_mode) and found.st_mtime < limit:
                path.unlink()
                deleted += 1
                size += found.st_size
        except FileNotFoundError:
            # Completed, or deleted by another process, since it was listed.
            continue
    _logger.info("unfinished_files_deleted", files=deleted, bytes=size)
    return deleted


def _checked(part: str) -> str:
    # An accent may be a part of its letter or a character after it, as Macs write it: one file, not two.
    name = unicodedata.normalize("NFC", part)
    letters = "".join(char for char in name if unicodedata.category(char) not in _MARKS)
    if not _SEGMENT.fullmatch(letters) or len(name.encode()) > _MAX_BYTES or _DEVICE.fullmatch(name):
        raise InvalidFileName(
            f"{part[:200]!r} is no name for a file, or too long a one: use letters, digits, spaces and ._+@-"
        )
    return name
