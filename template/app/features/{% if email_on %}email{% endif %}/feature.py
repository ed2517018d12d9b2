"""Declare the feature: the audit check of mails."""

from app.core.audit import AuditPoint
from app.core.features import Feature
from app.features.email.audit import email_findings

feature = Feature(audit=[AuditPoint("settings", email_findings)])
