"""How many messages of each queue a worker takes before it can run them.

`worker_prefetch_multiplier` messages per process keep processes busy with short tasks. Of a queue in the transport option
`queue_prefetch` it takes fewer: a long task that waits in one worker could run in another that is idle.
"""

from typing import Any

from celery import bootsteps
from celery.concurrency import solo


class QueuePrefetch(bootsteps.StartStopStep):
    """Gives the transport the multiplier that this worker was started with."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Set the multiplier; called again after a lost connection."""
        qos = consumer.task_consumer.channel.qos
        qos.multiplier = max(1, consumer.prefetch_multiplier)
        qos.one_at_a_time = isinstance(consumer.pool, solo.TaskPool)
