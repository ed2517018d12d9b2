"""Declare the feature: the routes over the records of tasks."""

from app.core.features import Feature
from app.features.tasks.platform import detail, listing

feature = Feature(routes=[listing.router, detail.router])
