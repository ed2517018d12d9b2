"""Settings of error reports."""

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup


class SentrySettings(SettingsGroup):
    """The Sentry project that receives error reports."""

    model_config = SettingsConfigDict(env_prefix="SENTRY_")

    dsn: SecretStr = Field(
        SecretStr(""), description="DSN of the Sentry project; empty means that no errors are reported."
    )

    @field_validator("dsn")
    @classmethod
    def _is_a_dsn(cls, value: SecretStr) -> SecretStr:
        parts = urlsplit(value.get_secret_value())
        complete = parts.scheme in {"http", "https"} and parts.hostname and parts.username and parts.path.strip("/")
        if value.get_secret_value() and not complete:
            raise ValueError("must be empty or a DSN such as https://KEY@HOST/PROJECT")
        return value


sentry_settings = SentrySettings()
