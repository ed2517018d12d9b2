"""Declare the feature: the routes of the schedule, and its page."""

from app.core.features import Feature, Routes
from app.features.tasks.platform.schedule import page, routes
from app.features.tasks.platform.ui.pages import MAX_BODY

feature = Feature(routes=[routes.router, Routes(page.router, max_body_bytes=lambda: MAX_BODY)])
