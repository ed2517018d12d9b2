"""Declare the feature: the route that creates a report."""

from app.core.features import Feature
from app.features.reports import routes

feature = Feature(routes=[routes.router])
