"""Declare the feature: the routes of complete accounts."""

from app.core.features import Feature
from app.features.accounts.complete import routes

feature = Feature(routes=[routes.router])
