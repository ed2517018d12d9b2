"""Metrics of queues and workers, which the API reads from Redis when Prometheus scrapes it.

Every API process reports the same values, so aggregate them with `max`.
"""

from collections.abc import Iterator
from typing import Any

import structlog
from celery import current_app
from kombu.exceptions import LimitExceeded, OperationalError
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from app.core.logging import error_repr
from app.features.metrics.tasks import last_success
from app.worker.broker import broker_channel
from app.worker.liveness import EXPIRES, count_workers

_logger = structlog.get_logger(__name__)


class QueueMetrics(Collector):
    """Read metrics from the broker. If it is unreachable, `celery_broker_up` is 0 and the others are missing."""

    def describe(self) -> Iterator[Metric]:
        """Return no descriptions: otherwise registering this would query the broker."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; wait at most a few seconds for the broker."""
        try:
            yield from _read()
            up = 1
        except (LimitExceeded, OperationalError, RedisError, OSError) as error:
            _logger.warning("queues_not_read", error=error_repr(error))
            up = 0
        yield GaugeMetricFamily("celery_broker_up", "Whether the broker is reachable.", value=up)


def _read() -> list[Metric]:
    app: Any = current_app
    length = GaugeMetricFamily("celery_queue_length", "Tasks waiting in the queue.", labels=["queue"])
    succeeded = GaugeMetricFamily(
        "celery_task_last_success_timestamp_seconds",
        "When a task with `record_last_success` last succeeded.",
        labels=["task"],
    )
    with broker_channel() as channel, channel.conn_or_acquire() as client:
        for queue in app.amqp.queues:
            # Declaring changes nothing in Redis and returns the length over all priorities.
            length.add_metric([queue], channel.queue_declare(queue).message_count)
        held = client.hlen(channel.unacked_key)
        workers = count_workers(client)
        for task, when in last_success.read(client).items():
            succeeded.add_metric([task], when)
    return [
        length,
        GaugeMetricFamily("celery_tasks_held", "Unacknowledged tasks: running, prefetched or with an ETA.", value=held),
        succeeded,
        GaugeMetricFamily("celery_workers", f"Workers with a heartbeat in the last {EXPIRES} s.", value=workers),
    ]
