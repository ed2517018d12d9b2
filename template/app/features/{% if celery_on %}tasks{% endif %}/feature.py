"""Declare the feature: the routes of tasks, and the checks and error responses of the queue."""

from app.core.audit import AuditPoint
from app.core.celery import celery_app
from app.core.features import Feature, Routes
from app.features.tasks import routes
from app.features.tasks.audit import broker_findings, worker_findings
from app.worker import eager_mode, liveness, outbox
from app.worker.broker import QueueUnavailable
from app.worker.flow_control import NotQueued
from app.worker.idempotency import IdempotencyKeyReused
from app.worker.job_limit import TooManyJobs
from app.worker.serializer import InvalidArguments


def _refuse_eager_mode() -> None:
    eager_mode.refuse(celery_app.conf)


feature = Feature(
    start=_refuse_eager_mode,
    routes=[routes.router, Routes(routes.examples, in_production=False)],
    checks={"worker": liveness.check("worker")},
    exception_handlers={
        NotQueued: routes.not_queued,
        TooManyJobs: routes.too_many_jobs,
        QueueUnavailable: routes.queue_unavailable,
        InvalidArguments: routes.invalid_arguments,
        IdempotencyKeyReused: routes.idempotency_key_reused,
    },
    lifespan=outbox.running,
    audit=[AuditPoint("settings", worker_findings), AuditPoint("services", broker_findings)],
)
