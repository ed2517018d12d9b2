"""The limit on the messages that wait in a queue: requests that queue more are refused, so that the queue's delay stays bounded."""

from typing import Any

from celery import current_app
from celery.canvas import _chain, chord, group

from app.core.config.celery import celery_settings
from app.worker import messages
from app.worker.flow_control import NotQueued, client
from app.worker.flow_scripts import PUBLISH
from app.worker.pipeline import Command, failures

_RETRY_AFTER = 10


class QueueTooLong(NotQueued):
    """`CELERY_MAX_QUEUE_DEPTH` messages already wait in the queue."""


def check_first(signature: Any) -> None:
    """Return if there is room for the first task of a workflow, which Celery queues message by message.

    Raises:
        QueueTooLong: there is not.
        redis.exceptions.RedisError: Redis does not answer.
    """
    while isinstance(signature, _chain | group | chord):
        parts = signature.tasks.tasks if isinstance(signature.tasks, group) else list(signature.tasks)
        if not parts:
            return
        signature = parts[0]
    app: Any = current_app
    queue = app.amqp.router.route(dict(signature.options), signature.task, task_type=signature.type)["queue"].name
    pipe = client().pipeline(transaction=False)
    pipe.hget("flow:depths", queue)
    for ending in ("", *messages.keys().endings):
        pipe.llen(queue + ending)
    length = sum(int(number or 0) for number in pipe.execute())
    if length >= celery_settings.max_queue_depth:
        raise _too_long(queue, length)


def publication(to_queue: list[Command], limit: int) -> list[Command]:
    """Return the commands that queue messages, all or none; see `check_queued`.

    Args:
        to_queue: `LPUSH` with one message each.
        limit: how many messages a queue may have then, or 0.
    """
    if not limit and len(to_queue) < 2:
        return to_queue
    keys = messages.keys()
    lists = [name for _, name, _ in to_queue]
    texts = [text for _, _, text in to_queue]
    return [("EVAL", PUBLISH, len(lists), *lists, limit, " ".join(keys.endings), *map(keys.queue, lists), *texts)]


def check_queued(replies: list[Any]) -> None:
    """Return if the replies to `publication` are that the messages were queued.

    Raises:
        QueueTooLong: a queue has no room.
        redis.exceptions.RedisError: Redis refused them, or does not answer.
    """
    for error in failures(replies):
        raise error
    for reply in replies:
        # That of LPUSH is a number.
        if isinstance(reply, list) and reply:
            queue, length = reply
            raise _too_long(queue.decode(), length)


def _too_long(queue: str, length: int) -> QueueTooLong:
    return QueueTooLong(f"{length} tasks already wait in the queue {queue!r}; try again later.", _RETRY_AFTER)
