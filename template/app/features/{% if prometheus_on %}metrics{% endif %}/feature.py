"""Declare the feature: the middleware that measures requests."""

from app.core.features import Feature
from app.features.metrics.requests import RequestMetrics

feature = Feature(middleware=[RequestMetrics])
