"""Settings of mailed codes."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup


class CodeSettings(SettingsGroup):
    """The lifetime of mailed codes."""

    model_config = SettingsConfigDict(env_prefix="EMAIL_")

    expiration: int = Field(
        1800, ge=60, le=86400, description="Seconds until a mailed code expires; a newer code replaces it."
    )


code_settings = CodeSettings()
