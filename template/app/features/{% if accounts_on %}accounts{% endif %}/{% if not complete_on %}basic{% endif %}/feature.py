"""Declare the feature: registration and login of basic accounts."""

from app.core.features import Feature
from app.features.accounts.basic import routes

feature = Feature(routes=[routes.router])
