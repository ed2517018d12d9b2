"""Declare the feature: report errors from the start of the API."""

from app.core.features import Feature
from app.features.error_reports import reporting

feature = Feature(start=reporting.start)
