"""What reports add to the API."""

from app.core.features import Feature
from app.features.reports import routes

feature = Feature(routes=[routes.router])
