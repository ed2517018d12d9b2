"""What complete accounts add to the API."""

from app.core.features import Feature
from app.features.accounts.complete import routes

feature = Feature(routes=[routes.router])
