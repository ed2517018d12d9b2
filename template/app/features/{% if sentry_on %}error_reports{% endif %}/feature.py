"""Declare the feature: report errors from the start of the API."""

from sentry_sdk.integrations.fastapi import FastApiIntegration
from sentry_sdk.integrations.starlette import StarletteIntegration

from app.core.features import Feature
from app.features.error_reports import reporting


def _start() -> None:
    # Here, because workers and beat start without FastAPI.
    reporting.start(StarletteIntegration(), FastApiIntegration())


feature = Feature(start=_start)
