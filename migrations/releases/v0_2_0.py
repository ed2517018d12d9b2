"""0.2.0: a time zone for the schedule."""

from __future__ import annotations

from engine.release import Answers, Release
from releases.conditions import with_celery


def _schedule_stays_in_utc(answers: Answers) -> Answers:
    return {"timezone": "UTC", **answers}


RELEASE = Release(
    "0.2.0",
    answers=_schedule_stays_in_utc,
    moved={
        "app/core/limits.py": "app/core/body_limit.py",
        "tests/test_limits.py": "tests/test_body_limit.py",
    },
    renamed={"APP_MAX_BODY": "APP_MAX_BODY_BYTES"},
    changes=(
        with_celery("A CELERY_TIMEZONE that this machine does not know stops a process at its start, not beat later."),
    ),
)
