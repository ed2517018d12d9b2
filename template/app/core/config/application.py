"""The application's own settings."""

from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from app.core.config import defaults
from app.core.config.base import BaseConcern

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


class ApplicationSettings(BaseConcern):
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
