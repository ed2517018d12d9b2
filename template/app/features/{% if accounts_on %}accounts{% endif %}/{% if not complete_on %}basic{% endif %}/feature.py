"""What basic accounts add to the API."""

from app.core.features import Feature
from app.features.accounts.basic import routes

feature = Feature(routes=[routes.router])
