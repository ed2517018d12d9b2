"""Settings of the codes that are mailed."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup


class CodeSettings(SettingsGroup):
    """How long a mailed code is good. Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="EMAIL_")

    expiration: int = Field(
        1800, ge=60, le=86400, description="Seconds that a code which was mailed is good; the newest one is, alone."
    )


code_settings = CodeSettings()
