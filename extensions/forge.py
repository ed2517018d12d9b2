"""Forge's Jinja filters and globals.

One self-contained file, because an update loads the old release's copy and the new one's in one process. Pure: no clock,
no network, no git; the exceptions are `secret` and `owner_only`, used by `secret/.env.*` alone.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import pass_context
from jinja2.ext import Extension

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context

_SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TIMEZONE = re.compile(r"[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*){0,2}")
# What app/core/mail_address.py takes: the application sends from it.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?=[^@]{{1,64}}@)[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@{_LABEL}(\.{_LABEL})+")
# These end a string or start a substitution in one of TOML, YAML, .env, Python or Make.
_UNSAFE = frozenset('"\\`${}<>#%')


def slug(text: str) -> str:
    """Return `text` as lower-case ASCII words joined by hyphens, starting with a letter; `app` if nothing is left."""
    ascii_text = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", ascii_text.lower().replace("'", ""))
    joined = "-".join(words)[:50].rstrip("-")
    return joined if joined[:1].isalpha() else f"app-{joined}".rstrip("-")


def slug_problem(text: str) -> str:
    """Return what is wrong with `text` as a slug, or an empty string."""
    if len(text) > 50:
        return f"{len(text)} characters; at most 50 are allowed."
    if not _SLUG.fullmatch(text):
        return f"Use lower-case letters, digits and single hyphens, starting with a letter, for example {slug(text)!r}."
    return ""


def text_problem(text: str, limit: int, *, required: bool = False) -> str:
    """Return what is wrong with `text` as a line of at most `limit` characters, or an empty string."""
    if required and not text.strip():
        return "Must not be empty."
    if len(text) > limit:
        return f"{len(text)} characters; at most {limit} are allowed."
    if text != text.strip():
        return "Must not start or end with a space."
    bad = sorted({c for c in text if c in _UNSAFE or not c.isprintable()})
    if bad:
        return f"Must not contain {' '.join(map(ascii, bad))}: these have a meaning in configuration files."
    return ""


def email_problem(text: str) -> str:
    """Return what is wrong with `text` as a mail address, or an empty string."""
    if len(text) > 254 or not _EMAIL.fullmatch(text):
        return "Must be a mail address such as hello@example.com."
    return ""


def secret() -> str:
    """Return 32 random bytes as URL-safe text, anew at every call."""
    return secrets.token_urlsafe(32)


def timezone_problem(text: str) -> str:
    """Return what is wrong with `text` as the name of a time zone, or an empty string.

    By its form alone: which zones there are depends on the machine.
    """
    if len(text) > 64 or not _TIMEZONE.fullmatch(text):
        return "Must be the name of a time zone such as UTC or Europe/Berlin."
    return ""


@pass_context
def owner_only(context: Context) -> str:
    """Return nothing, and have the file that is rendered be readable by its owner alone.

    Copier gives a file the mode of its template, and git keeps none but the executable bit.
    """
    environment = context.environment
    if environment.loader and context.name:
        filename = environment.loader.get_source(environment, context.name)[1]
        if filename:
            # A template that belongs to somebody else: `make dev` and `make secrets` protect the file.
            with contextlib.suppress(PermissionError):
                Path(filename).chmod(0o600)
    return ""


class ForgeExtension(Extension):
    """Adds this module's filters and the globals `secret(name)` and `owner_only()` to Copier's environment."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters.update(
            shell_word=shlex.quote,
            slug=slug,
            slug_problem=slug_problem,
            text_problem=text_problem,
            email_problem=email_problem,
            timezone_problem=timezone_problem,
        )
        # One rendering writes the same password into the file of a server and into that of its clients.
        known: dict[str, str] = {}
        environment.globals["owner_only"] = owner_only
        environment.globals["secret"] = lambda name: known.setdefault(name, secret())
