"""Declare the feature: the routes over the records of tasks, those that act on tasks, those of operators, and the page."""

from app.core.features import Feature, Routes
from app.features.tasks.platform import actions, bulk, dead_letters, detail, events, listing, queues
from app.features.tasks.platform.submission import submission_router, submittable
from app.features.tasks.platform.ui import routes as ui
from app.features.tasks.platform.ui.pages import MAX_BODY

feature = Feature(
    routes=[
        # First: GET /tasks/ui is not about a task with that id.
        Routes(ui.router, max_body_bytes=lambda: MAX_BODY),
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
