"""What error reports add to the API."""

from app.core.features import Feature
from app.features.error_reports import reporting

feature = Feature(start=reporting.start)
