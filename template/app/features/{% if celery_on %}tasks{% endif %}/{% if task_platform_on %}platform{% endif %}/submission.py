"""POST /tasks: clients queue the tasks that allow it with `submit=True`.

Each of them has a model of its parameters, which validates the arguments and which OpenAPI shows.
"""

import functools
import inspect
import operator
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, create_model

from app.api.errors import invalid
from app.api.owner import OwnerDep
from app.api.task_access import TaskViewerDep
from app.core.celery import celery_app
from app.features.tasks.platform.problems import ProblemRoute, problem_responses
from app.worker import idempotency
from app.worker.publish import enqueue, enqueue_once

MAX_DELAY = 86400
"""Seconds for which a task may be delayed: it waits in the memory of a worker."""

_LITERAL: Any = Literal
_NAMED = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


class Submitted(BaseModel):
    """A task that was queued, now or by an earlier call: with the same key, or of a task that is unique."""

    task_id: str
    task: str


class _Submission(BaseModel):
    """What is common to all tasks."""

    model_config = ConfigDict(extra="forbid")

    countdown: float | None = Field(
        None, ge=0, le=MAX_DELAY, allow_inf_nan=False, description="Seconds after which the task may start"
    )
    eta: AwareDatetime | None = Field(None, description="When the task may start, at most a day ahead")


def submittable() -> list[Any]:
    """Return the tasks that clients may queue, in the order of their names."""
    celery_app.loader.import_default_modules()
    return sorted((task for task in celery_app.tasks.values() if getattr(task, "submit", False)), key=_name)


def submission_router(tasks: Iterable[Any]) -> APIRouter:
    """Return the route that queues these tasks; without any, there is no route.

    Raises:
        ValueError: a task has parameters that cannot be given by name.
    """
    router = APIRouter(
        tags=["tasks"],
        route_class=ProblemRoute,
        responses=problem_responses(400, 401, 403, 409, 422, 429, 503),
    )
    models = [_model(task, number) for number, task in enumerate(tasks)]
    if not models:
        return router

    async def submit_task(
        submission: Any,
        owner: OwnerDep,
        _: TaskViewerDep,
        response: Response,
        idempotency_key: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key",
                min_length=1,
                max_length=idempotency.MAX_LENGTH,
                description="With the key of an earlier request, its answer is returned and nothing is queued: for 24 hours",
            ),
        ] = None,
    ) -> Submitted:
        """Queue a task, whose owner is the user. Which tasks there are, and their arguments: see the request's schema."""
        result = await _submit(submission, owner, idempotency_key)
        response.headers["Location"] = f"/tasks/{result.task_id}"
        return result

    any_of_them = functools.reduce(operator.or_, models)
    # FastAPI reads it from here.
    submit_task.__annotations__["submission"] = (
        Annotated[any_of_them, Body(discriminator="task")] if len(models) > 1 else any_of_them
    )
    router.add_api_route("/tasks", submit_task, methods=["POST"], status_code=202)
    return router


async def _submit(submission: Any, owner: str, idempotency_key: str | None) -> Submitted:
    if submission.countdown is not None and submission.eta is not None:
        raise invalid(("body", "eta"), "cannot be given with a countdown")
    now = datetime.now(UTC)
    if submission.eta is not None and submission.eta > now + timedelta(seconds=MAX_DELAY):
        raise invalid(("body", "eta"), "must be at most a day ahead")
    # What is not given has the default of the task's release that runs it.
    arguments = submission.arguments.model_dump(by_alias=True, exclude_unset=True)
    task: Any = celery_app.tasks[submission.task]
    if task.takes_models:
        arguments |= _models_as_json(submission.arguments)
    given = {"queue": submission.queue, "countdown": submission.countdown, "eta": submission.eta}
    options = {name: value for name, value in given.items() if value is not None}
    if submission.eta is not None and submission.eta <= now:
        # Workers cannot read every time of the first year.
        del options["eta"]
    signature = task.signature(kwargs=arguments, **options)
    if idempotency_key is None:
        result = await enqueue(signature, owner)
    else:
        name = f"idempotency/{idempotency.digest(['POST /tasks', owner, idempotency_key])}"
        call = idempotency.digest([idempotency.digest_of_call(signature), given])
        result = await enqueue_once(signature, owner, idempotency.Key(name, call, idempotency.EXPIRES))
    return Submitted(task_id=result.id, task=submission.task)


def _models_as_json(arguments: BaseModel) -> dict[str, Any]:
    """Return the arguments that are models as JSON, from which the task makes the models again.

    Raises:
        fastapi.exceptions.RequestValidationError: JSON does not keep a model, such as one with a `SecretStr`.
    """
    found: dict[str, Any] = {}
    for name, value in arguments:
        if isinstance(value, BaseModel) and name in arguments.model_fields_set:
            parameter = str(type(arguments).model_fields[name].alias)
            if not _is_kept(value):
                raise invalid(("body", "arguments", parameter), "cannot be queued: JSON does not keep its values")
            found[parameter] = value.model_dump(mode="json", by_alias=True, exclude_unset=True, round_trip=True)
    return found


def _is_kept(value: BaseModel) -> bool:
    try:
        # With the defaults: some differ each time.
        return type(value).model_validate(value.model_dump(mode="json", by_alias=True, round_trip=True)) == value
    except ValueError:
        return False


def _model(task: Any, number: int) -> Any:
    """Return the model of a request that queues the task."""
    name = "".join(word.capitalize() for word in task.name.replace("_", ".").split(".")) or f"Task{number}"
    queues = tuple(queue.name for queue in celery_app.conf.task_queues)
    arguments = create_model(
        f"{name}Arguments",
        __config__=ConfigDict(extra="forbid"),
        __module__=f"{__name__}.{number}",
        **_fields(task),
    )
    is_required = any(field.is_required() for field in arguments.model_fields.values())
    default = ... if is_required else arguments()
    fields: dict[str, Any] = {
        "task": (_LITERAL[task.name], ...),
        "arguments": (arguments, default),
        "queue": (_LITERAL[queues] | None, Field(None, description="Instead of the task's own")),
    }
    return create_model(
        f"Submit{name}",
        __base__=_Submission,
        __module__=f"{__name__}.{number}",
        __doc__=inspect.getdoc(task.run) or task.name,
        **fields,
    )


def _fields(task: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(inspect.signature(task.run, eval_str=True).parameters.values()):
        if parameter.kind not in _NAMED:
            raise ValueError(f"{task.name}: submit=True needs parameters with names, which {parameter} has not.")
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        default = ... if parameter.default is parameter.empty else parameter.default
        # An alias: a parameter may have a name that a model's field cannot have.
        fields[f"parameter_{number}"] = (annotation, Field(default, alias=parameter.name))
    return fields


def _name(task: Any) -> str:
    return str(task.name)
