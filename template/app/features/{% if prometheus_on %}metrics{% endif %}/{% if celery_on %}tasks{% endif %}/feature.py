"""The queues' metrics, which the API serves: it runs wherever anything runs."""

from app.core.features import Feature
from app.features.metrics.exposition import collecting
from app.features.metrics.tasks.queues import QueueMetrics

feature = Feature(lifespan=lambda: collecting(QueueMetrics()))
