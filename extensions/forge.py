"""Forge's Jinja filters and globals.

One self-contained file, because an update loads the copies of the old and the new release in one process. Pure: no clock,
no network, no git, except `secret` and `owner_only`, which only `secret/.env.*` use.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import textwrap
import unicodedata
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copier.errors import UserMessageError
from jinja2 import pass_context
from jinja2.ext import Extension

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment
    from jinja2.runtime import Context

_SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TIMEZONE = re.compile(r"[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*){0,2}")
# What app/core/mail_address.py accepts: the application sends from this address.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?=[^@]{{1,64}}@)[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@{_LABEL}(\.{_LABEL})+")
# These end a string or start a substitution in one of TOML, YAML, .env, Python or Make.
_UNSAFE = frozenset('"\\`${}<>#%')
# Of the summary, in columns of a terminal that has 80.
_WIDTH = 76
_COLUMN = 37


def slug(text: str) -> str:
    """Return `text` as lower-case ASCII words joined by hyphens, starting with a letter; `app` if nothing is left."""
    ascii_text = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", ascii_text.lower().replace("'", ""))
    joined = "-".join(words)[:50].rstrip("-")
    return joined if joined[:1].isalpha() else f"app-{joined}".rstrip("-")


def slug_problem(text: str) -> str:
    """Return why `text` is not a valid slug, or an empty string."""
    if len(text) > 50:
        return f"{_quoted(text)} has {len(text)} characters; use at most 50."
    if not _SLUG.fullmatch(text):
        return (
            f"{_quoted(text)} is not a short name; use lower-case letters, digits and single hyphens, starting with a "
            f"letter, for example {slug(text)!r}."
        )
    return ""


def text_problem(text: str, limit: int, *, required: bool = False) -> str:
    """Return why `text` is not a valid line of at most `limit` characters, or an empty string."""
    if required and not text.strip():
        return f"{_quoted(text)} is empty; enter at least one character."
    if len(text) > limit:
        return f"{_quoted(text)} has {len(text)} characters; use at most {limit}."
    if text != text.strip():
        return f"{_quoted(text)} starts or ends with a space; remove it."
    bad = sorted({c for c in text if c in _UNSAFE or not c.isprintable()})
    if bad:
        return f"{_quoted(text)} contains {' '.join(map(ascii, bad))}, special in configuration files; remove it."
    return ""


def email_problem(text: str) -> str:
    """Return why `text` is not a valid e-mail address, or an empty string."""
    if len(text) > 254 or not _EMAIL.fullmatch(text):
        return f"{_quoted(text)} is not an e-mail address; use for example hello@example.com."
    return ""


def timezone_problem(text: str) -> str:
    """Return why `text` cannot be the name of a time zone, or an empty string.

    Only the form is checked: the known time zones depend on the machine.
    """
    if len(text) > 64 or not _TIMEZONE.fullmatch(text):
        return f"{_quoted(text)} is not an IANA time zone; use for example UTC or Europe/Berlin."
    return ""


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def summary(answers: Mapping[str, Any]) -> str:
    """Return the answers as lines of `name=value` that fit a terminal: short ones in two columns, long ones wrapped."""
    cells = [f"{name}={_value(value)}" for name, value in answers.items() if not name.startswith("_")]
    short = [cell for cell in cells if len(cell) <= _COLUMN]
    lines = [
        f"  {left:<{_COLUMN}}{right}".rstrip() for left, right in zip_longest(short[::2], short[1::2], fillvalue="")
    ]
    for cell in cells:
        if cell not in short:
            lines.extend(textwrap.wrap(cell, _WIDTH, initial_indent="  ", subsequent_indent="    "))
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def stop(message: str) -> str:
    """End Copier with `message`."""
    raise UserMessageError(message)


def secret() -> str:
    """Return 32 random bytes as URL-safe text, different at every call."""
    return secrets.token_urlsafe(32)


@pass_context
def owner_only(context: Context) -> str:
    """Return an empty string, and make the file that is rendered readable by its owner only.

    Copier gives a file the mode of its template, and git keeps only the executable bit.
    """
    environment = context.environment
    if environment.loader and context.name:
        filename = environment.loader.get_source(environment, context.name)[1]
        if filename:
            # The template may belong to another user: `make dev` and `make secrets` protect the file then.
            with contextlib.suppress(PermissionError):
                Path(filename).chmod(0o600)
    return ""


class ForgeExtension(Extension):
    """Adds this module's filters and the globals `secret(name)`, `owner_only()` and `stop(message)` to Copier."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters.update(
            shell_word=shlex.quote,
            slug=slug,
            slug_problem=slug_problem,
            text_problem=text_problem,
            email_problem=email_problem,
            timezone_problem=timezone_problem,
            summary=summary,
        )
        # One rendering writes the same password for a server and for its clients.
        known: dict[str, str] = {}
        environment.globals["owner_only"] = owner_only
        environment.globals["stop"] = stop
        environment.globals["secret"] = lambda name: known.setdefault(name, secret())
