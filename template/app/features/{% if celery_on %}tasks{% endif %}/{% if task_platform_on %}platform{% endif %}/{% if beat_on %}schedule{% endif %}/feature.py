"""Declare the feature: the routes of the schedule."""

from app.core.features import Feature
from app.features.tasks.platform.schedule import routes

feature = Feature(routes=[routes.router])
