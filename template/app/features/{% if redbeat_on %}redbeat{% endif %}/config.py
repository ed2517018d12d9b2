"""Settings of the scheduler that keeps its schedule in Redis."""

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup


class RedbeatSettings(SettingsGroup):
    """How several beats agree on the one that fires. Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="REDBEAT_")

    loop_interval: float = Field(5, ge=0.5, le=60, description="How often beat looks for what is due, at the latest.")
    lock_timeout: float = Field(
        30, ge=2.5, le=3600, description="How soon another beat fires after one that died; at least 5 times the above."
    )

    @model_validator(mode="after")
    def _outlives_the_loop(self) -> "RedbeatSettings":
        if self.lock_timeout < 5 * self.loop_interval:
            raise ValueError("REDBEAT_LOCK_TIMEOUT must be at least 5 times REDBEAT_LOOP_INTERVAL")
        return self


redbeat_settings = RedbeatSettings()
