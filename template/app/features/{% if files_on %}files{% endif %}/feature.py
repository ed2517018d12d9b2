"""Declare the feature: the routes of files, their body limit and the response to storage errors."""

from app.core.features import Feature, Routes
from app.features.files import routes
from app.features.storage.config import storage_settings

feature = Feature(
    routes=[Routes(routes.uploads, max_body_bytes=lambda: storage_settings.max_upload_bytes), routes.router],
    exception_handlers={routes.StorageError: routes.storage_unavailable},
)
