"""Settings of metrics."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup


class MetricsSettings(SettingsGroup):
    """Where metrics are served: on separate ports, which a proxy does not make public."""

    model_config = SettingsConfigDict(env_prefix="METRICS_")

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        max_length=255,
        description="IP address that metrics are served on; in a container use `0.0.0.0` and do not publish the ports.",
    )
    api_port: int = Field(9807, ge=1, le=65535, description="Port of the API's metrics.")
    worker_port: int = Field(
        9808, ge=1, le=65535, description="Port of a worker's metrics; workers on the same host need different ones."
    )


metrics_settings = MetricsSettings()
