"""Declare the feature: the routes over the records of tasks, and those that act on tasks."""

from app.core.features import Feature
from app.features.tasks.platform import actions, bulk, detail, listing
from app.features.tasks.platform.submission import submission_router, submittable

feature = Feature(routes=[listing.router, detail.router, actions.router, bulk.router, submission_router(submittable())])
