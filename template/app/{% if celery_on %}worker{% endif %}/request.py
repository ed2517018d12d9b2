"""One delivery of a task, as the worker's main process follows it."""

from typing import Any

from app.worker import waiting
from app.worker.redelivery import RequeuingRequest
from app.worker.time_limits import enforceable_limits


class AppRequest(RequeuingRequest):
    """The request of every `AppTask`: its limits fit together, and it is requeued if its end cannot be stored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        request: Any = self
        hard, soft = request.time_limits
        request.time_limits = enforceable_limits(hard or self.task.time_limit, soft or self.task.soft_time_limit)

    def _announce_revoked(self, *args: Any, **kwargs: Any) -> None:
        super()._announce_revoked(*args, **kwargs)
        waiting.end(self)
