"""Declare the feature: the route that processes a CSV file."""

from app.core.features import Feature
from app.features.csv import routes

feature = Feature(routes=[routes.router])
