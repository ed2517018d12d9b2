"""What images add to the API."""

from app.core.features import Feature
from app.features.images import routes

feature = Feature(routes=[routes.router])
