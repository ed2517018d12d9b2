"""What each release asks of older projects, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packaging.version import Version

Answers = dict[str, Any]
Told = str | Callable[[Answers], str | None]


def _unchanged(answers: Answers) -> Answers:
    return answers


@dataclass(frozen=True)
class Release:
    """One release. `answers` is given the recorded answers, `_commit` and the like included, and returns the new ones; run
    twice it must change nothing more. `renamed` holds settings, old name to new. `changes`, `steps` and `offers` (what is
    new and switched off in older projects) are sentences for the report; one that only some projects need is a function,
    which is given the new answers and returns its sentence or None.
    """

    version: str
    answers: Callable[[Answers], Answers] = _unchanged
    renamed: Mapping[str, str] = field(default_factory=dict)
    changes: Sequence[Told] = field(default_factory=tuple)
    steps: Sequence[Told] = field(default_factory=tuple)
    offers: Sequence[Told] = field(default_factory=tuple)


def sentences(told: Sequence[Told], answers: Answers) -> list[str]:
    """Return what is told to a project with these answers."""
    every = [one if isinstance(one, str) else one(answers) for one in told]
    return [sentence for sentence in every if sentence]


def _with_celery(sentence: str) -> Told:
    return lambda answers: sentence if answers.get("use_celery") else None


def _with_accounts(sentence: str) -> Told:
    return lambda answers: sentence if answers.get("auth", "none") != "none" else None


def _with_accounts_and_celery(sentence: str) -> Told:
    return lambda answers: sentence if answers.get("auth", "none") != "none" and answers.get("use_celery") else None


def _with_complete(sentence: str) -> Told:
    return lambda answers: sentence if answers.get("auth") == "complete" else None


def _with_files(sentence: str) -> Told:
    packs = {"data_processing", "reports", "images"}
    return lambda answers: (
        sentence if answers.get("use_celery") and packs & set(answers.get("task_examples", [])) else None
    )


def _behind_a_proxy(answers: Answers) -> str | None:
    if not answers.get("use_docker"):
        return None
    return (
        "Set FORWARDED_ALLOW_IPS in secret/.env.production as secret/env.production.example does: until then all clients behind the "
        "proxy share one rate limit. APP_DOCS_ENABLED=false closes /docs."
    )


def _with_schedule(sentence: str) -> Told:
    return lambda answers: sentence if answers.get("use_celery") and answers.get("scheduler") != "none" else None


def _with_pack(pack: str, sentence: str) -> Told:
    return lambda answers: sentence if answers.get("use_celery") and pack in answers.get("task_examples", []) else None


def _schedule_stays_in_utc(answers: Answers) -> Answers:
    return {"timezone": "UTC", **answers}


def _packs_stay_off(answers: Answers) -> Answers:
    # Mails came with Celery.
    return {"task_examples": ["email"], **answers}


def _other_packs(answers: Answers) -> str | None:
    have = answers.get("task_examples", [])
    packs = ["email", "data_processing", "reports", "images", "cleanup", "notifications", "backup"]
    if answers.get("auth", "none") == "none":
        packs.remove("cleanup")
    off = [pack for pack in packs if pack not in have]
    if not answers.get("use_celery") or not off:
        return None
    return (
        f"Task packs: {', '.join(off)}. Name those that you want, and those that you have: "
        f"make update ARGS=\"--data 'task_examples=[{', '.join([*have, off[0]])}]'\""
    )


def _complete_accounts(answers: Answers) -> str | None:
    if not answers.get("use_celery") or answers.get("auth") != "basic":
        return None
    return (
        "Accounts with verified addresses, refresh tokens, forgotten passwords and devices: "
        'make update ARGS="--data auth=complete". Accounts that are there already count as verified; '
        "docs/accounts.md says more."
    )


def _production_stays_as_it_is(answers: Answers) -> Answers:
    return {"use_docker": False, "use_kubernetes": False, "observability": [], **answers}


def _docker(answers: Answers) -> str | None:
    if answers.get("use_docker"):
        return None
    return (
        "Docker: an image, and compose for production on one host. Move Docker files of your own away, then: "
        'make update ARGS="--data use_docker=true" && make secrets'
    )


def _kubernetes(answers: Answers) -> str | None:
    if answers.get("use_kubernetes") or answers.get("database") == "sqlite":
        return None
    return (
        'Manifests for Kubernetes, beside Docker: make update ARGS="--data use_docker=true --data use_kubernetes=true" '
        "&& make secrets"
    )


def _observability(answers: Answers) -> str | None:
    have = answers.get("observability", [])
    off = [part for part in ("prometheus", "opentelemetry", "sentry") if part not in have]
    if not off:
        return None
    return (
        f"Observability: {', '.join(off)}. Name those that you want: "
        f"make update ARGS=\"--data 'observability=[{', '.join([*have, off[0]])}]'\""
    )


def _redbeat(answers: Answers) -> str | None:
    if not answers.get("use_celery") or answers.get("scheduler") != "beat":
        return None
    return 'A scheduler of which a second one takes over: make update ARGS="--data scheduler=redbeat"'


RELEASES: Sequence[Release] = (
    Release(
        "0.2.0",
        answers=_schedule_stays_in_utc,
        renamed={"APP_MAX_BODY": "APP_MAX_BODY_BYTES"},
        changes=(
            _with_celery(
                "A CELERY_TIMEZONE that this machine does not know stops a process at its start, not beat later."
            ),
        ),
    ),
    Release(
        "0.3.0",
        answers=_packs_stay_off,
        changes=(
            _with_accounts(
                "The tables users and sessions have new columns, which `alembic upgrade heads` adds before the new code "
                "starts, as at every deployment; make dev does so itself."
            ),
        ),
        offers=(_other_packs, _complete_accounts),
    ),
    Release(
        "0.4.0",
        answers=_production_stays_as_it_is,
        changes=(
            _with_celery(
                "A worker told to stop gives back what it has not finished after CELERY_SOFT_SHUTDOWN_TIMEOUT (20 s), where "
                "it waited without limit: raise it for long tasks, and allow 10 s more until it is killed."
            ),
            _with_celery("A scheduled task without `expires` of its own is dropped when the next one is due."),
            _with_celery("GET /ready asks for beat too where there is a schedule."),
        ),
        offers=(_docker, _kubernetes, _observability, _redbeat),
    ),
    Release(
        "0.4.1",
        changes=(
            "make test runs the fast tests, in two processes with servers of their own; make test-all runs all of them. A test "
            'of yours that must run alone: @pytest.mark.processes, or make test ARGS="-n 0".',
            "A request body over the limit is answered 413 in one form, also without Content-Length.",
            _with_celery(
                "A result that Redis refuses is stored again for CELERY_RESULT_RETRY seconds (120); then the task goes back to its "
                "queue and runs again."
            ),
            _with_celery(
                "Arguments nested deeper than 100 levels, larger than CELERY_MESSAGE_MAX_BYTES (4 MiB) or with the keys __type__ "
                "and __value__ are refused where a task is queued (InvalidArguments, 422)."
            ),
            _with_celery(
                "A task that a worker does not know goes back to its queue for CELERY_UNKNOWN_TASK_WAIT seconds (300) before it "
                "fails. Deploy workers before API and beat."
            ),
            _with_celery("A revoked task is not run by workers that start later either, for 30 days."),
            _with_celery(
                "A time_limit given alone is enforced, with a soft limit at nine tenths of it; limits that contradict each "
                "other raise."
            ),
            "A Redis URL stops a process at its start where it would be misread: a broker's with options other than ssl_*, any "
            "with unknown options or ssl_* without rediss://; the number of the database is the path, /1.",
            _with_celery("A worker whose Redis user may not use channels or scripts says so and exits."),
            _with_schedule("GET /ready asks for schedule_entries too: entries that could not be queued."),
            _with_accounts(
                "A login, registration or change of password that waits too long to be hashed is answered 503 with Retry-After."
            ),
            _with_pack(
                "images",
                "Images above 50 megapixels (JPEG), 16 (PNG, progressive JPEG) or 8.5 (WebP) are refused: they need more memory "
                "than a worker's limit.",
            ),
        ),
        steps=(
            "app/core/body_limit.py is gone: where you used BodyLimit or larger_bodies, give the router or route max_body_size.",
            _with_celery("Set peak_memory (bytes) on tasks of yours that take more than 150 MiB: a test adds them up."),
        ),
    ),
    Release(
        "0.4.2",
        changes=(
            "A misspelt name of a setting, and a line of a settings file that is not NAME=value, stop a process at its start.",
            "make dev stops where a server that the settings name does not answer, unless they have the generated default.",
            _with_celery("ENVIRONMENT=production and staging do not serve POST /process, which is an example."),
            _with_accounts_and_celery(
                "GET /task/{task_id} shows a task to the user whose request queued it, and no other; in production and staging "
                "tasks without an owner are 404, in development they stay open."
            ),
            _with_accounts_and_celery(
                "One user has at most CELERY_MAX_JOBS_PER_OWNER (20) jobs that have not ended, and is answered 429 beyond. Tasks of "
                "users go behind others of their queue."
            ),
            _with_complete(
                "A login of an unverified address answers 403, no longer 401; accounts are made when the mailed code is used; "
                "accounts that were used are marked as verified by a revision (docs/accounts.md)."
            ),
            _with_accounts("Addresses that no mail can be sent to are answered 422. A login sets a cookie, device_…."),
            _with_files(
                "The files of one user take at most STORAGE_MAX_BYTES_PER_OWNER (10 GiB); beyond it uploads are answered 413."
            ),
            _with_pack(
                "data_processing", "Cells of CSV results that a spreadsheet would run get a leading apostrophe."
            ),
            "Answers have security headers, and FORWARDED_ALLOW_IPS is a setting that takes no *.",
        ),
        steps=(
            _behind_a_proxy,
            _with_accounts_and_celery(
                "Routes of yours that queue a task for a user: enqueue(signature, owner), see docs/celery.md."
            ),
            _with_pack(
                "notifications",
                "Set NOTIFICATION_ID_SECRET in secret/.env.production: a random value of 32 characters or more.",
            ),
            _with_complete("Deploy workers before the API: mail_registration has one more argument."),
        ),
    ),
)


def between(old: Version, new: Version) -> list[Release]:
    """Return the releases after `old` up to `new`."""
    return [release for release in RELEASES if old < Version(release.version) <= new]
