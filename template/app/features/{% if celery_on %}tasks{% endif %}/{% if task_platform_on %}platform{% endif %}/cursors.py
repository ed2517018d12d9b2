"""The text in which a client gets the cursor of the next page."""

import base64
import binascii

from app.api.errors import invalid
from app.worker.history import Cursor

MAX_LENGTH = 400


def encode(cursor: Cursor | None) -> str | None:
    """Return the cursor as text that fits into a URL."""
    if cursor is None:
        return None
    return base64.urlsafe_b64encode(f"{cursor.time}:{cursor.task_id}".encode()).decode().rstrip("=")


def decode(text: str | None, where: str = "query") -> Cursor | None:
    """Return the cursor that a client gives back.

    Raises:
        fastapi.exceptions.RequestValidationError: it is not one of this API's.
    """
    if text is None:
        return None
    try:
        time, _, task_id = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(":")
        if not (time.isascii() and time.isdigit() and len(time) < 17 and task_id):
            raise ValueError("it has no time or no id")
        return Cursor(int(time), task_id)
    except (ValueError, binascii.Error) as error:
        raise invalid((where, "cursor"), "is not the next_cursor of a page") from error
