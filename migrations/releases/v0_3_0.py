"""0.3.0: task packs and complete accounts."""

from __future__ import annotations

from engine.release import Answers, Release
from releases.conditions import with_accounts


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


RELEASE = Release(
    "0.3.0",
    answers=_packs_stay_off,
    changes=(
        with_accounts(
            "The tables users and sessions have new columns, which `alembic upgrade heads` adds before the new code "
            "starts, as at every deployment; make dev does so itself."
        ),
    ),
    offers=(_other_packs, _complete_accounts),
)
