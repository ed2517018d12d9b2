"""What metrics add to the API."""

from app.core.features import Feature
from app.features.metrics.requests import RequestMetrics

feature = Feature(middleware=[RequestMetrics])
