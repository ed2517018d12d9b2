"""0.4.2: owned tasks, stricter settings and accounts."""

from __future__ import annotations

from engine.release import Answers, Release
from releases.conditions import (
    with_accounts,
    with_accounts_and_celery,
    with_any_pack,
    with_celery,
    with_complete_accounts,
    with_pack,
)

_FILES = {"data_processing", "reports", "images"}


def _behind_a_proxy(answers: Answers) -> str | None:
    if not answers.get("use_docker"):
        return None
    return (
        "Set FORWARDED_ALLOW_IPS in secret/.env.production as secret/env.production.example does: until then all clients behind the "
        "proxy share one rate limit. APP_DOCS_ENABLED=false closes /docs."
    )


RELEASE = Release(
    "0.4.2",
    changes=(
        "A misspelled name of a setting, and a line of a settings file that is not NAME=value, stop a process at its start.",
        "make dev stops where a server that the settings name does not answer, unless they have the generated default.",
        with_celery("ENVIRONMENT=production and staging do not serve POST /process, which is an example."),
        with_accounts_and_celery(
            "GET /task/{task_id} shows a task to the user whose request queued it, and no other; in production and staging "
            "tasks without an owner are 404, in development they stay open."
        ),
        with_accounts_and_celery(
            "One user has at most CELERY_MAX_JOBS_PER_OWNER (20) jobs that have not ended, and is answered 429 beyond. Tasks of "
            "users go behind others of their queue."
        ),
        with_complete_accounts(
            "A login of an unverified address answers 403, no longer 401; accounts are made when the mailed code is used; "
            "accounts that were used are marked as verified by a revision (docs/accounts.md)."
        ),
        with_accounts("Addresses that no mail can be sent to are answered 422. A login sets a cookie, device_…."),
        with_any_pack(
            _FILES,
            "The files of one user take at most STORAGE_MAX_BYTES_PER_OWNER (10 GiB); beyond it uploads are answered 413.",
        ),
        with_pack("data_processing", "Cells of CSV results that a spreadsheet would run get a leading apostrophe."),
        "Answers have security headers, and FORWARDED_ALLOW_IPS is a setting that takes no *.",
    ),
    steps=(
        _behind_a_proxy,
        with_accounts_and_celery(
            "Routes of yours that queue a task for a user: enqueue(signature, owner), see docs/celery.md."
        ),
        with_pack(
            "notifications",
            "Set NOTIFICATION_ID_SECRET in secret/.env.production: a random value of 32 characters or more.",
        ),
        with_complete_accounts("Deploy workers before the API: mail_registration has one more argument."),
    ),
)
