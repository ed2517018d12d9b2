"""Settings of error reports."""

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup


class SentrySettings(SettingsGroup):
    """Where errors are reported."""

    model_config = SettingsConfigDict(env_prefix="SENTRY_")

    dsn: SecretStr = Field(
        SecretStr(""), description="Address of the project in Sentry, with its key. Empty: none are sent."
    )

    @field_validator("dsn")
    @classmethod
    def _is_a_dsn(cls, value: SecretStr) -> SecretStr:
        parts = urlsplit(value.get_secret_value())
        complete = parts.scheme in {"http", "https"} and parts.hostname and parts.username and parts.path.strip("/")
        if value.get_secret_value() and not complete:
            raise ValueError("must be empty or like https://KEY@HOST/PROJECT")
        return value


sentry_settings = SentrySettings()
