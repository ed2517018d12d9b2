"""Fails what can no longer run after a member of a workflow failed, was revoked or expired.

Celery fails the steps and the chord that it finds next to the failed task. What is nested deeper (a chord in the header of
another, a group inside a chain, what follows a revoked task) would stay PENDING until it expires.
"""

from typing import Any

from celery import states
from celery.app.task import Context
from celery.canvas import Signature, _chain, chord, group, maybe_signature
from celery.exceptions import TaskRevokedError


class WorkflowFailures:
    """Mixed into Celery's Redis backend, where a part of a chord may be returned more than once."""

    def mark_as_revoked(self, task_id: str, reason: str = "", request: Any = None, *args: Any, **kwargs: Any) -> None:
        """Store REVOKED, and FAILURE for what would have run after it."""
        backend: Any = super()
        backend.mark_as_revoked(task_id, reason, request, *args, **kwargs)
        if request is not None:
            error = TaskRevokedError(f"{request.task}[{task_id}] was {reason}")
            self._fail_chain(request.chain, error)

    def chord_error_from_stack(self, callback: Any, exc: BaseException | None = None) -> Any:
        """Fail the callback of a chord, and what waits for the callback."""
        backend: Any = super()
        result = backend.chord_error_from_stack(callback, exc)
        self._fail(callback, exc)
        return result

    def _fail_chain(
        self,
        steps: Any,
        exc: BaseException,
        traceback: Any = None,
        store_result: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        # The next step is the last in the list.
        for step in reversed(steps or []):
            self._fail(step, exc)

    def _fail(self, step: Any, exc: BaseException | None) -> None:
        """Fail a signature that cannot run any more, all its parts and all that waits for it."""
        backend: Any = self
        signature: Any = maybe_signature(step, app=backend.app)
        for part in _parts(signature):
            self._fail(part, exc)
        options = signature.options
        if not isinstance(signature, (group, _chain, chord)) and options.get("task_id"):
            request = Context({**signature, **options, "id": options["task_id"], "group": options.get("group_id")})
            # Not with `mark_as_failure`: Celery has already called the errbacks that it found.
            backend.store_result(request.id, exc, states.FAILURE, request=request)
            if options.get("chord"):
                backend.on_chord_part_return(request, states.FAILURE, exc)
        self._fail_chain(options.get("chain"), exc)  # type: ignore[arg-type]


def _parts(signature: Signature[Any]) -> list[Any]:
    if isinstance(signature, chord):
        header = signature.tasks
        return [*(header.tasks if isinstance(header, group) else header), signature.body]
    return list(signature.tasks) if isinstance(signature, (group, _chain)) else []
