"""How long the queues are and how many workers there are: read from Redis by the API, when Prometheus asks.

Every API process tells the same, so take the `max` of them.
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

from app.features.metrics.tasks import last_success
from app.worker.broker import broker_channel
from app.worker.liveness import EXPIRES, count_workers

_logger = structlog.get_logger(__name__)


class QueueMetrics(Collector):
    """Reads the broker; without an answer `celery_broker_up` is 0 and the others are missing."""

    def describe(self) -> Iterator[Metric]:
        """Say nothing: otherwise the broker would be asked when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Return what the broker says; waits at most a few seconds for it."""
        try:
            yield from _read()
            up = 1
        except (LimitExceeded, OperationalError, RedisError, OSError) as error:
            _logger.warning("queues_not_read", error=repr(error))
            up = 0
        yield GaugeMetricFamily("celery_broker_up", "Whether the broker answers.", value=up)


def _read() -> list[Metric]:
    app: Any = current_app
    length = GaugeMetricFamily("celery_queue_length", "Tasks that wait in the queue.", labels=["queue"])
    succeeded = GaugeMetricFamily(
        "celery_task_last_success_timestamp_seconds",
        "When a task with `record_last_success` last succeeded.",
        labels=["task"],
    )
    with broker_channel() as channel:
        for queue in app.amqp.queues:
            # Declaring changes nothing in Redis, and is how kombu tells the length of all priorities together.
            length.add_metric([queue], channel.queue_declare(queue).message_count)
        held = channel.client.hlen(channel.unacked_key)
        workers = count_workers(channel.client)
        for task, when in last_success.read(channel.client).items():
            succeeded.add_metric([task], when)
    return [
        length,
        GaugeMetricFamily("celery_tasks_held", "Tasks that workers run, or keep to run later.", value=held),
        succeeded,
        GaugeMetricFamily("celery_workers", f"Workers heard of in the last {EXPIRES} s.", value=workers),
    ]
