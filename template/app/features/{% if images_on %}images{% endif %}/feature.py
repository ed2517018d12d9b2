"""Declare the feature: the route that creates thumbnails."""

from app.core.features import Feature
from app.features.images import routes

feature = Feature(routes=[routes.router])
