"""What CSV files add to the API."""

from app.core.features import Feature
from app.features.csv import routes

feature = Feature(routes=[routes.router])
