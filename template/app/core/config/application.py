"""The application's own settings."""

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field

from app.core.config import defaults
from app.core.config.base import CommaSeparated, SettingsGroup

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


def _require_network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError("must be addresses or networks, such as 127.0.0.1, 10.0.0.0/8") from error
    return text


Proxies = Annotated[CommaSeparated, AfterValidator(lambda value: [_require_network(one) for one in value])]


class ApplicationSettings(SettingsGroup):
    """Name, environment, logs and limits."""

    environment: Literal["development", "test", "staging", "production"] = Field(
        "development",
        validation_alias="ENVIRONMENT",
        description="Chooses the file in `secret/`; staging and production start with safe settings only. "
        "Set it in the process environment.",
    )
    name: str = Field(
        defaults.NAME,
        validation_alias="APP_NAME",
        min_length=1,
        max_length=100,
        description="Title of the API and mails.",
    )
    version: str = Field("0.1.0", validation_alias="APP_VERSION", max_length=50, description="Version of the API.")
    description: str = Field(
        defaults.DESCRIPTION, validation_alias="APP_DESCRIPTION", max_length=500, description="Description of the API."
    )
    max_body_bytes: int = Field(
        1_048_576,
        # Its name before 0.2.0 is still read.
        validation_alias=AliasChoices("APP_MAX_BODY_BYTES", "APP_MAX_BODY"),
        ge=1024,
        le=1_073_741_824,
        description="Largest request body in bytes; a larger one is answered 413.",
    )
    docs_enabled: bool = Field(
        True,
        validation_alias="APP_DOCS_ENABLED",
        description="Serve `/docs`, `/redoc` and `/openapi.json`, which show every route to everybody.",
    )
    forwarded_allow_ips: Proxies = Field(
        ["127.0.0.1"],
        validation_alias="FORWARDED_ALLOW_IPS",
        max_length=100,
        description="Addresses and networks of the proxies before the API, whose word on the client's address counts: rate limits "
        "are per client.",
    )
    log_level: LogLevel = Field(
        "INFO", validation_alias="LOG_LEVEL", description="DEBUG, INFO, WARNING, ERROR or CRITICAL."
    )
    log_format: Literal["console", "json"] = Field(
        "console", validation_alias="LOG_FORMAT", description="`json` writes one JSON object a line."
    )

    @property
    def must_be_safe(self) -> bool:
        """Whether this environment starts with safe settings only."""
        return self.environment in {"staging", "production"}


app_settings = ApplicationSettings()
