"""Declare the feature: start tracing with the API."""

from app.core.features import Feature
from app.features.tracing import provider

feature = Feature(start=provider.start, options={"telemetry": provider.TELEMETRY})
