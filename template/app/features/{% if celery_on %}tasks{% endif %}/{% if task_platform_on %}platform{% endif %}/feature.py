"""Declare the feature: the routes over the records of tasks, those that act on tasks, and those of operators."""

from app.core.features import Feature
from app.features.tasks.platform import actions, bulk, dead_letters, detail, events, listing, queues
from app.features.tasks.platform.submission import submission_router, submittable

feature = Feature(
    routes=[
        listing.router,
        detail.router,
        events.router,
        actions.router,
        bulk.router,
        submission_router(submittable()),
        dead_letters.router,
        queues.router,
    ],
    lifespan=events.ending_with_the_process,
)
