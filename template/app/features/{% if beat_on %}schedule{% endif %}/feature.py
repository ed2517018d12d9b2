"""Declare the feature: the readiness and audit checks of beat and the schedule."""

from collections.abc import AsyncIterator

from app.core.audit import AuditPoint, Finding
from app.core.features import Feature
from app.features.tasks.audit import liveness_finding
from app.worker import liveness, schedule_health


async def _beat_findings() -> AsyncIterator[Finding]:
    for part in ("beat", "schedule"):
        yield await liveness_finding(part)


feature = Feature(
    checks={
        "beat": liveness.check("beat"),
        "schedule": liveness.check("schedule"),
        "schedule_entries": schedule_health.check,
    },
    audit=[AuditPoint("services", _beat_findings)],
)
