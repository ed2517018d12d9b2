"""The base class of all settings: where values come from, and the audit for production."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from pydantic import AliasChoices, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

ROOT = Path(__file__).resolve().parents[3]
"""The project's root folder."""

_SERVERS = {"redis", "rediss", "postgresql", "mysql", "mariadb"}
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_WEAK = {"admin", "app", "change-me", "changeme", "default", "guest", "mysql", "password", "postgres", "redis", "root"}


def env_file() -> Path:
    """Return `secret/.env.<ENVIRONMENT>`; the default environment is `development`."""
    return ROOT / "secret" / f".env.{os.environ.get('ENVIRONMENT') or 'development'}"


def env_files() -> list[Path]:
    """Return the settings files, the highest priority last; in development including that of a running `make dev`."""
    file, dev = env_file(), ROOT / ".dev"
    runs = file.name == ".env.development" and (dev / "env").exists() and _is_held(dev / "lock")
    return [file, dev / "env"] if runs else [file]


def _is_held(lock: Path) -> bool:
    """Return whether a process holds the lock: a killed process leaves its files behind."""
    import fcntl  # noqa: PLC0415 - does not exist on Windows

    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def is_local(host: str | None) -> bool:
    """Return whether `host` is this machine; None means a Unix socket."""
    return host is None or host in _LOCAL


def weak_secret(text: str) -> bool:
    """Return whether `text` is a well-known default, too short or an unfilled placeholder."""
    return text.lower() in _WEAK or len(text) < 8 or "<random" in text


def checking_certificates(url: SecretStr) -> SecretStr:
    """Return the URL with `ssl_cert_reqs=CERT_REQUIRED` if it is `rediss://` and does not set the option."""
    text = url.get_secret_value()
    parts = urlsplit(text)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(parts.query):
        return url
    # Without the option, one part of Celery rejects the URL and another accepts any certificate.
    return SecretStr(f"{text}{'&' if parts.query else '?'}ssl_cert_reqs=CERT_REQUIRED")


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(_split)]
"""A list, written as `a, b` or as JSON in the environment."""


class _SecretFiles(PydanticBaseSettingsSource):
    """Read secrets from files: `NAME_FILE` in the process environment is the path of the file with `NAME`'s value."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return a secret's value and key; the value is None if `NAME_FILE` is not set."""
        alias = field.validation_alias
        key = str(alias.choices[0] if isinstance(alias, AliasChoices) else alias or field_name)
        name = key if alias else f"{self.config.get('env_prefix', '')}{field_name}".upper()
        path = os.environ.get(f"{name}_FILE")
        if not path or SecretStr not in (field.annotation, *get_args(field.annotation)):
            return None, key, False
        if os.environ.get(name):
            raise SettingsError(f"{name} and {name}_FILE are both set; set only one.")
        try:
            # Editors end a file with a newline, which is not part of the secret.
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n"), key, False
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{name}_FILE={path} cannot be read: {error}") from error

    def __call__(self) -> dict[str, Any]:
        """Return the secrets that are read from files."""
        found = (self.get_field_value(field, name) for name, field in self.settings_cls.model_fields.items())
        return {key: value for value, key, _ in found if value is not None}


class SettingsGroup(BaseSettings):
    """Settings of one topic. The process environment overrides the settings file, which overrides the default.

    A secret can also be in a separate file: set `NAME_FILE` in the process environment to its path.
    """

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the file when the settings are created, not when this module is imported."""
        # The file has the variables of all groups. Without the filter, each group would compare each of them with each of its fields.
        file = DotEnvSettingsSource(settings_cls, env_file=env_files(), dotenv_filtering="only_existing")
        return init_settings, env_settings, _SecretFiles(settings_cls), file

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the name of the environment variable of `field`."""
        alias = cls.model_fields[field].validation_alias
        if isinstance(alias, AliasChoices):
            alias = str(alias.choices[0])
        return str(alias) if alias else f"{cls.model_config.get('env_prefix', '')}{field}".upper()

    def audit(self) -> list[str]:
        """Return one sentence for each default, weak or missing secret, which production does not allow."""
        problems = []
        for field in type(self).model_fields:
            value = getattr(self, field)
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            if not isinstance(text, str) or not text:
                continue
            variable = self.variable(field)
            parts = urlsplit(text) if "://" in text else None
            if parts is not None and parts.scheme.partition("+")[0] in _SERVERS:
                problems += _server_problems(variable, parts)
            elif isinstance(value, SecretStr) and weak_secret(text):
                problems.append(f"{variable} is a default, weak or placeholder secret; set a random one.")
        return problems


def _server_problems(variable: str, parts: SplitResult) -> list[str]:
    if parse_qs(parts.query).get("ssl_cert_reqs", ["required"])[-1].lower() not in {"required", "cert_required"}:
        return [f"{variable} accepts any certificate; set ssl_cert_reqs=CERT_REQUIRED."]
    if is_local(parts.hostname) and not parts.password:
        return []
    if not parts.password:
        return [f"{variable} has no password for {parts.hostname}; add one."]
    if weak_secret(unquote(parts.password)):
        return [f"{variable} has a default, weak or placeholder password; set a random one."]
    return []
