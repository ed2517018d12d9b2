"""0.7.0: the task platform."""

from __future__ import annotations

from engine.release import Answers, Release
from releases.conditions import with_accounts_and_celery, with_celery


def _platform_is_on(answers: Answers) -> bool:
    return bool(answers.get("use_celery") and answers.get("task_platform"))


def _has_accounts(answers: Answers) -> bool:
    return bool(answers.get("auth", "none") != "none")


def _platform(answers: Answers) -> str | None:
    if not _platform_is_on(answers):
        return None
    who = (
        "A user sees and changes their own tasks"
        if _has_accounts(answers)
        else "It is open to whoever has TASKS_OPERATOR_TOKEN"
    )
    return (
        "The task platform is switched on: an API (/tasks) and a page (/tasks/ui) that list, queue, follow, cancel and retry tasks; "
        f"/dead-letters, /queues, /workers and /schedule are for operators. {who}: see docs/task-api.md. To remove all of it: "
        'make update ARGS="--data task_platform=false"'
    )


def _platform_offer(answers: Answers) -> str | None:
    if not answers.get("use_celery") or answers.get("task_platform"):
        return None
    return (
        "The task platform: an API and a page that show, queue, cancel and retry tasks, with dead letters, queues, workers and the "
        'schedule: make update ARGS="--data task_platform=true"'
    )


def _revisions(answers: Answers) -> str | None:
    added = [
        *(["the tables outbox_messages and once_keys"] if answers.get("use_celery") else []),
        *(["the column users.is_operator"] if _has_accounts(answers) else []),
    ]
    if not added:
        return None
    return (
        f"`alembic upgrade heads` (make migrate) adds {' and '.join(added)} before the new code starts, as at every deployment; "
        "make dev does so itself. If you have a table or column of such a name, rename yours first."
    )


def _welcome(answers: Answers) -> str | None:
    if answers.get("auth") != "basic":
        return None
    return (
        "The method welcome of a subclass of Welcome (app/features/accounts/basic/welcome.py) has the session as its first argument, "
        "welcome(db, user), and runs before the commit. The method check is no longer called."
    )


def _command(answers: Answers) -> str:
    return (
        f"The project has a command line: `uv run {answers.get('project_slug', 'PROJECT')} --help`, see docs/command-line.md. "
        "`uv sync` installs the project itself for it, with the packages typer and rich."
    )


def _operator(answers: Answers) -> str | None:
    if not _platform_is_on(answers):
        return None
    if _has_accounts(answers):
        return (
            "Operators see and change the tasks of all users. Make a user one: "
            f"`uv run {answers.get('project_slug', 'PROJECT')} users operator EMAIL --on`."
        )
    return (
        "The task API refuses everybody without TASKS_OPERATOR_TOKEN: set it where production runs, to 32 or more random characters, "
        "as secret/env.production.example does."
    )


def _own_routes(answers: Answers) -> str | None:
    if not _platform_is_on(answers):
        return None
    return (
        "If routes of yours are under /tasks, /dead-letters, /queues, /workers or /schedule, the platform's may hide them: give yours "
        "another prefix, or set task_platform=false."
    )


RELEASE = Release(
    "0.7.0",
    names={"app.worker.dead_letters.KEY": "app.worker.dead_letters.letters"},
    changes=(
        _platform,
        _revisions,
        with_celery(
            "Each task has a record in the Redis of the results: about 1 KB for 7 days, of the newest 100,000 tasks (100 MB). "
            "CELERY_RECORDS_MAX and CELERY_RECORDS_EXPIRE change both."
        ),
        with_celery(
            "The message of a task that failed or was revoked is stored with its arguments for the same time, up to 16 KB, so that it "
            "can run again; never with redact_arguments=True. CELERY_RECORDS_MESSAGE_MAX_BYTES=0 stores none."
        ),
        with_celery(
            "A task that has succeeded does not run again under the same task_id while its result is stored (CELERY_RESULT_EXPIRES, an "
            "hour). If you queue with fixed ids, give each run its own; to queue once only, use idempotency_key."
        ),
        with_celery(
            "A task that expires while it waits in a worker does not start: expires is also checked at the start of the task."
        ),
        with_celery(
            "task_always_eager=True is refused: API, workers and beat do not start, and no task is queued. Tests use the fixtures "
            "assert_queued, drain and running_worker: see docs/testing-tasks.md."
        ),
        with_celery(
            "Tasks over their redelivery limit become dead letters too. Dead letters are no longer the Redis list dead_letters, whose "
            "messages are moved when they are read: read them with app.worker.dead_letters, not with LLEN or LRANGE."
        ),
        with_accounts_and_celery(
            "POST /register commits its mail with the account, in the outbox, and no longer answers 503 while Redis is down: see "
            "docs/database-and-tasks.md."
        ),
        _welcome,
        "Each response has X-Request-ID, and the request's log lines have request_id, those of its tasks too.",
        _command,
    ),
    steps=(
        "Run `uv sync`, and commit uv.lock with the update.",
        _operator,
        _own_routes,
    ),
    offers=(_platform_offer,),
)
