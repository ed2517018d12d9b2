"""Declare the feature: the routes over the records of tasks, and those of operators."""

from app.core.features import Feature
from app.features.tasks.platform import dead_letters, detail, listing, queues

feature = Feature(routes=[listing.router, detail.router, dead_letters.router, queues.router])
