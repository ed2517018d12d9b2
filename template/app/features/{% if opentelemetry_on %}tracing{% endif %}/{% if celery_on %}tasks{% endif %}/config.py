"""Settings of traces, next to OpenTelemetry's own."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup


class TracingSettings(SettingsGroup):
    """What belongs to one trace."""

    model_config = SettingsConfigDict(env_prefix="TRACING_")

    link_fan_outs: bool = Field(
        default=False,
        description="Whether each member of a group or chord, and each task of `enqueue_many`, has a trace of its own, which is linked to "
        "the span that queued it, instead of being in that trace.",
    )


tracing_settings = TracingSettings()
