"""Settings of redbeat, the scheduler that stores its schedule in Redis."""

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup


class RedbeatSettings(SettingsGroup):
    """How several beats elect the active one. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="REDBEAT_")

    loop_interval: float = Field(5, ge=0.5, le=60, description="Maximum time between two checks for due entries.")
    lock_timeout: float = Field(
        30,
        ge=2.5,
        le=3600,
        description="Time until another beat takes over from one that died; at least 5 times REDBEAT_LOOP_INTERVAL.",
    )

    @model_validator(mode="after")
    def _outlives_the_loop(self) -> "RedbeatSettings":
        if self.lock_timeout < 5 * self.loop_interval:
            raise ValueError("REDBEAT_LOCK_TIMEOUT must be at least 5 times REDBEAT_LOOP_INTERVAL")
        return self


redbeat_settings = RedbeatSettings()
