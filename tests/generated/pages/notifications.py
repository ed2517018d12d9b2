"""docs/notifications.md."""

import time

from app.features.notifications.service import signature
from tests.pages.hooks import Names, after


@after("def is_genuine")
async def it_accepts_what_the_task_signs_and_nothing_else(names: Names) -> None:
    now = int(time.time())
    headers = {
        "webhook-id": "1",
        "webhook-timestamp": str(now),
        "webhook-signature": signature(b"key", "1", now, b"{}"),
    }
    assert names["is_genuine"]("key", headers, b"{}")
    assert not names["is_genuine"]("key", headers, b"{ }")
    assert not names["is_genuine"]("other", headers, b"{}")
