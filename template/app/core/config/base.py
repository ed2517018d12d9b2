"""What every concern's settings share: where values come from, and the audit for production."""

import json
import os
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AliasChoices, BeforeValidator, SecretStr
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

ROOT = Path(__file__).resolve().parents[3]
"""The project's folder."""

_SERVERS = {"redis", "rediss", "postgresql", "mysql", "mariadb"}
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_WEAK = {"admin", "app", "change-me", "changeme", "default", "guest", "mysql", "password", "postgres", "redis", "root"}


def env_file() -> Path:
    """Return the file of this environment: `secret/.env.` and `ENVIRONMENT`, which is `development` where unset."""
    return ROOT / "secret" / f".env.{os.environ.get('ENVIRONMENT') or 'development'}"


def is_local(host: str | None) -> bool:
    """Return whether `host` is this machine; None is a socket file."""
    return host is None or host in _LOCAL


def weak_secret(text: str) -> bool:
    """Return whether `text` is a default that everybody knows, too short, or a placeholder that nobody filled in."""
    return text.lower() in _WEAK or len(text) < 8 or "<random" in text


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(_split)]
"""A list, written `a, b` in the environment; JSON is understood too."""


class BaseConcern(BaseSettings):
    """Settings of one concern. The process environment beats the environment's file, which beats the default."""

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
        """Read the file when the settings are made, not when this module is imported."""
        return init_settings, env_settings, DotEnvSettingsSource(settings_cls, env_file=env_file())

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the name of the environment variable of `field`."""
        alias = cls.model_fields[field].validation_alias
        if isinstance(alias, AliasChoices):
            alias = str(alias.choices[0])
        return str(alias) if alias else f"{cls.model_config.get('env_prefix', '')}{field}".upper()

    def audit(self) -> list[str]:
        """Return what is not fit for production, a sentence each: secrets that are known, weak or missing."""
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
                problems.append(f"{variable} is a default, weak or unfilled secret: set a random one.")
        return problems


def _server_problems(variable: str, parts: SplitResult) -> list[str]:
    if is_local(parts.hostname) and not parts.password:
        return []
    if not parts.password:
        return [f"{variable} names no password for {parts.hostname}."]
    if weak_secret(unquote(parts.password)):
        return [f"{variable} holds a default, weak or unfilled password: set a random one."]
    return []
