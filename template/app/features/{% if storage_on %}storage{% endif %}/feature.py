"""Declare the feature: the audit check of the storage."""

from app.core.audit import AuditPoint
from app.core.features import Feature
from app.features.storage.audit import storage_findings

feature = Feature(audit=[AuditPoint("settings", storage_findings)])
