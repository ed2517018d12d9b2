"""Declare the feature: the routes over the records of tasks, and those that act on tasks."""

from app.core.features import Feature
from app.features.tasks.platform import actions, bulk, detail, events, listing
from app.features.tasks.platform.submission import submission_router, submittable

feature = Feature(
    routes=[
        listing.router,
        detail.router,
        events.router,
        actions.router,
        bulk.router,
        submission_router(submittable()),
    ],
    lifespan=events.ending_with_the_process,
)
