"""Declare the feature: the CORS middleware."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from app.core.features import Feature
from app.features.cors.config import cors_settings


def _cors(app: ASGIApp) -> ASGIApp:
    return CORSMiddleware(app, **cors_settings.middleware_options())


feature = Feature(middleware=[_cors])
