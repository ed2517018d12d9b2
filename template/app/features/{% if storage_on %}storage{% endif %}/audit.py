"""The audit check of the storage."""

import os
from collections.abc import AsyncIterator

from app.core.audit import Finding, problem
from app.core.config import defaults
from app.features.storage.config import storage_settings


async def storage_findings() -> AsyncIterator[Finding]:
    """Check that all processes share the same files."""
    in_pods = defaults.IN_PODS or "KUBERNETES_SERVICE_HOST" in os.environ
    if storage_settings.is_bucket:
        yield Finding("ok", "storage", "STORAGE_URL is a bucket")
    elif in_pods:
        yield problem("storage", "STORAGE_URL is a folder, which pods do not share; use a bucket, s3://NAME.")
    else:
        yield Finding("ok", "storage", "STORAGE_URL is a folder, which the API and all workers must share")
