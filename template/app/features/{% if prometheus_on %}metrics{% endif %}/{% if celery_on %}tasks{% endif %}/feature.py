"""Declare the feature: the API serves the metrics of the queues, because it runs even if no worker does."""

from app.core.features import Feature
from app.features.metrics.exposition import collecting
from app.features.metrics.tasks.queues import QueueMetrics

feature = Feature(lifespan=lambda: collecting(QueueMetrics()))
