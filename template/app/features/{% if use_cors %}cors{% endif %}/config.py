"""Settings of cross-origin requests (CORS)."""

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from app.core.config.base import CommaSeparated, SettingsGroup


class CorsSettings(SettingsGroup):
    """Which origins may call the API from a browser; by default none."""

    model_config = SettingsConfigDict(env_prefix="CORS_")

    allowed_origins: CommaSeparated = Field(
        [],
        max_length=100,
        description="Allowed origins such as `https://example.com`, comma-separated; `*` allows all.",
    )
    allow_credentials: bool = Field(False, description="Allow requests with cookies and HTTP authentication.")
    allow_methods: CommaSeparated = Field(
        ["GET", "POST", "PUT", "PATCH", "DELETE"], max_length=20, description="Allowed methods, comma-separated."
    )
    allow_headers: CommaSeparated = Field(
        ["Authorization", "Content-Type"], max_length=100, description="Allowed request headers, comma-separated."
    )
    expose_headers: CommaSeparated = Field(
        [], max_length=100, description="Response headers that scripts may read, comma-separated."
    )
    max_age: int = Field(600, ge=0, le=86400, description="Seconds that a browser caches the preflight response.")

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, value: list[str]) -> list[str]:
        for origin in value:
            parts = urlsplit(origin)
            if origin != "*" and (not parts.scheme or origin != f"{parts.scheme}://{parts.netloc}" or not parts.netloc):
                raise ValueError(
                    "must be * or origins such as https://example.com:8443, without a path or trailing slash"
                )
        return value

    def middleware_options(self) -> dict[str, Any]:
        """Return the arguments of Starlette's CORSMiddleware."""
        options = self.model_dump()
        options["allow_origins"] = options.pop("allowed_origins")
        return options

    def audit(self) -> list[str]:
        """Return one sentence for each setting that is not safe for production."""
        if "*" in self.allowed_origins and self.allow_credentials:
            return [
                "CORS_ALLOWED_ORIGINS=* with CORS_ALLOW_CREDENTIALS lets any site act as the user; list the origins."
            ]
        return []


cors_settings = CorsSettings()
