"""Declare the feature: the routes over the records of tasks."""

from app.core.features import Feature
from app.features.tasks.platform import detail, events, listing

feature = Feature(routes=[listing.router, detail.router, events.router], lifespan=events.ending_with_the_process)
