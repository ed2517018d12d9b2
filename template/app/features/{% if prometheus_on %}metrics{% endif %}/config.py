"""Settings of metrics."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup


class MetricsSettings(SettingsGroup):
    """Where Prometheus finds the metrics: on ports of their own, which no proxy makes public."""

    model_config = SettingsConfigDict(env_prefix="METRICS_")

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        max_length=255,
        description="Address on which metrics are served; in a container `0.0.0.0`, with the ports not published.",
    )
    api_port: int = Field(9807, ge=1, le=65535, description="Port of the API's metrics.")
    worker_port: int = Field(9808, ge=1, le=65535, description="Port of a worker's metrics; one for each on a machine.")


metrics_settings = MetricsSettings()
