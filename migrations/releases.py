"""What each release asks of older projects, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packaging.version import Version

Answers = dict[str, Any]


def _unchanged(answers: Answers) -> Answers:
    return answers


@dataclass(frozen=True)
class Release:
    """One release. `answers` is given the recorded answers, `_commit` and the like included, and returns the new ones; run
    twice it must change nothing more. `renamed` holds settings, old name to new. `changes`, `steps` and `offers` (what is
    new and switched off in older projects) are sentences for the report.
    """

    version: str
    answers: Callable[[Answers], Answers] = _unchanged
    renamed: Mapping[str, str] = field(default_factory=dict)
    changes: Sequence[str] = field(default_factory=tuple)
    steps: Sequence[str] = field(default_factory=tuple)
    offers: Sequence[str] = field(default_factory=tuple)


def _schedule_stays_in_utc(answers: Answers) -> Answers:
    return {"timezone": "UTC", **answers}


def _packs_stay_off(answers: Answers) -> Answers:
    # Mails came with Celery.
    return {"task_examples": ["email"], **answers}


RELEASES: Sequence[Release] = (
    Release(
        "0.2.0",
        answers=_schedule_stays_in_utc,
        renamed={"APP_MAX_BODY": "APP_MAX_BODY_BYTES"},
        changes=("A CELERY_TIMEZONE that this machine does not know stops a process at its start, not beat later.",),
    ),
    Release(
        "0.3.0",
        answers=_packs_stay_off,
        offers=(
            "Task packs: data_processing, reports, images, cleanup, notifications, backup. Switch on those that you want, "
            "beside email: copier update --trust --data 'task_examples=[email, reports]'",
        ),
    ),
)


def between(old: str, new: str) -> list[Release]:
    """Return the releases after `old` up to `new`."""
    return [release for release in RELEASES if Version(old) < Version(release.version) <= Version(new)]
