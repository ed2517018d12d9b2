"""The file storage of the API and the workers: a local folder, or a bucket of an S3-compatible service.

Use it with obstore's functions: `obstore.put(store(), checked("files", name), content)`, `get`, `list`, `delete` and
their `_async` variants. https://developmentseed.org/obstore/
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
"""The folder of users' files, with a folder for each owner."""

UNFINISHED_AFTER = timedelta(days=1)
"""How long a file must be unchanged to count as abandoned; a slow upload writes 5 MiB at a time."""

_SEGMENT = re.compile(r"\w[\w.+@ -]{0,126}(?<![. ])")
# File systems allow 255; obstore appends a few characters while it writes a file.
_MAX_BYTES = 240
# The name of obstore's temporary file, which it renames when the file is complete.
_UNFINISHED = re.compile(r".+#\d+")
# Windows opens a device instead of a file with such a name, whatever its extension.
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
_MARKS = {"Mn", "Mc"}
_logger = structlog.get_logger(__name__)


class InvalidFileName(ValueError):
    """The file name is unsafe or not portable."""


@functools.cache
def store() -> LocalStore | S3Store:
    """Return the store of `STORAGE_URL`. Creates a local folder if it is missing."""
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
        # The time without any data; a whole response may take as long as a client needs to download it.
        "read_timeout": timedelta(seconds=30),
        "timeout": timedelta(days=1),
    }
    return S3Store(bucket, prefix=prefix or None, config=options, client_options=client)


def checked(*parts: str) -> str:
    """Validate each part and return them as a path in the storage. Users choose file names, so never skip this.

    Raises:
        InvalidFileName: a part is empty, longer than 127 characters or 240 bytes, has characters other than letters,
            digits, spaces and `._+@-`, starts with anything but a letter, digit or underscore, ends with a dot or a
            space, or is the name of a Windows device.
    """
    return "/".join(_checked(part) for part in parts)


def delete_unfinished() -> int:
    """Delete the temporary files that killed processes have left in the local folder; return how many.

    Does nothing for a bucket: configure a lifecycle rule that deletes incomplete multipart uploads.
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
            # The file was completed, or deleted by another process, since it was listed.
            continue
    _logger.info("unfinished_files_deleted", files=deleted, bytes=size)
    return deleted


def _checked(part: str) -> str:
    # macOS writes an accent as a separate character; normalize it, so that both forms name the same file.
    name = unicodedata.normalize("NFC", part)
    letters = "".join(char for char in name if unicodedata.category(char) not in _MARKS)
    if not _SEGMENT.fullmatch(letters) or len(name.encode()) > _MAX_BYTES or _DEVICE.fullmatch(name):
        raise InvalidFileName(
            f"{part[:200]!r} is not a valid file name or too long; use letters, digits, spaces and ._+@-"
        )
    return name
