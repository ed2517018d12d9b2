"""The types and helpers of audit checks, which `python -m app.audit` runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from app.core.config import load_groups

_TIME_LIMIT = 5.0


@dataclass(frozen=True)
class Finding:
    """One line of the audit."""

    state: Literal["ok", "problem", "skipped"]
    what: str
    text: str


@dataclass(frozen=True)
class AuditPoint:
    """A feature's check: `settings` reads only the configuration, `services` connects to running servers."""

    part: Literal["settings", "services"]
    check: Callable[[], AsyncIterator[Finding]]


class Unmet(Exception):
    """A requirement of the audit is not met; the message explains which."""


def problem(what: str, text: str) -> Finding:
    """Return a finding that fails the audit."""
    return Finding("problem", what, text)


def no_answer(what: str, failure: str) -> Finding:
    """Return the finding for an unreachable server."""
    return problem(
        what,
        f"is unreachable: {failure}. Check that it is running and accepts connections from this host. "
        "If it runs in containers, run the audit in a container.",
    )


async def failure_of(check: Callable[[], Awaitable[object]]) -> str | None:
    """Return why `check` failed, in one line without secrets; None if it returned within 5 s."""
    try:
        async with asyncio.timeout(_TIME_LIMIT):
            await check()
    except TimeoutError:
        return f"no response within {_TIME_LIMIT:.0f} s"
    # Each driver raises its own exceptions.
    except Exception as error:  # noqa: BLE001
        cause = error.__cause__ if type(error).__name__ == "QueueUnavailable" and error.__cause__ else error
        first = (str(cause).strip() or type(cause).__name__).partition("\n")[0].rstrip(".")
        return _without_secrets(first)
    return None


def _without_secrets(text: str) -> str:
    for group in load_groups():
        for value in vars(group).values():
            secret = value.get_secret_value() if isinstance(value, SecretStr) else ""
            password = urlsplit(secret).password or "" if "://" in secret else ""
            for hidden in filter(None, (secret, password, unquote(password))):
                text = text.replace(hidden, "***")
    return text
