"""General settings of the application."""

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
        raise ValueError("must be IP addresses or networks, such as 127.0.0.1, 10.0.0.0/8") from error
    return text


Proxies = Annotated[CommaSeparated, AfterValidator(lambda value: [_require_network(one) for one in value])]


class ApplicationSettings(SettingsGroup):
    """Name, environment, logs, proxies and limits."""

    environment: Literal["development", "test", "staging", "production"] = Field(
        "development",
        validation_alias="ENVIRONMENT",
        description="Selects the file in `secret/`; staging and production start only with safe settings. "
        "Set it in the process environment.",
    )
    name: str = Field(
        defaults.NAME,
        validation_alias="APP_NAME",
        min_length=1,
        max_length=100,
        description="Name of the application in the API documentation and in mails.",
    )
    version: str = Field("0.1.0", validation_alias="APP_VERSION", max_length=50, description="Version of the API.")
    description: str = Field(
        defaults.DESCRIPTION, validation_alias="APP_DESCRIPTION", max_length=500, description="Description of the API."
    )
    max_body_bytes: int = Field(
        1_048_576,
        # APP_MAX_BODY is the name before 0.2.0.
        validation_alias=AliasChoices("APP_MAX_BODY_BYTES", "APP_MAX_BODY"),
        ge=1024,
        le=1_073_741_824,
        description="Maximum size of a request body in bytes; a larger body gets 413.",
    )
    docs_enabled: bool = Field(
        True,
        validation_alias="APP_DOCS_ENABLED",
        description="Serve `/docs`, `/redoc` and `/openapi.json`, which are public and list every route.",
    )
    forwarded_allow_ips: Proxies = Field(
        ["127.0.0.1"],
        validation_alias="FORWARDED_ALLOW_IPS",
        max_length=100,
        description="IP addresses and networks of the proxies whose `X-Forwarded-*` headers are trusted. "
        "Rate limits use the client's address from these headers.",
    )
    log_level: LogLevel = Field(
        "INFO", validation_alias="LOG_LEVEL", description="DEBUG, INFO, WARNING, ERROR or CRITICAL."
    )
    log_format: Literal["console", "json"] = Field(
        "console", validation_alias="LOG_FORMAT", description="`console` or `json`; `json` writes one object per line."
    )

    @property
    def must_be_safe(self) -> bool:
        """Whether this environment requires safe settings: staging and production."""
        return self.environment in {"staging", "production"}


app_settings = ApplicationSettings()
