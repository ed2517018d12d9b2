"""What a release declares for older projects; the modules of `releases/` hold one each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packaging.version import Version

Answers = Mapping[str, Any]
Note = str | Callable[[Answers], str | None]
"""A sentence for the report, or a function of the new answers that returns one, or None where it does not apply."""


def _unchanged(answers: Answers) -> Answers:
    return answers


@dataclass(frozen=True)
class Release:
    """One release.

    Attributes:
        version: as on top of CHANGELOG.md.
        answers: takes the recorded answers, `_commit` and the like included, and returns the new ones; running it twice
            must change nothing more.
        renamed: settings, old name to new.
        changes: what behaves differently.
        steps: what the owner has to do by hand.
        offers: what is new, and switched off in older projects.
    """

    version: str
    answers: Callable[[Answers], Answers] = _unchanged
    renamed: Mapping[str, str] = field(default_factory=dict)
    changes: Sequence[Note] = ()
    steps: Sequence[Note] = ()
    offers: Sequence[Note] = ()


def between(releases: Iterable[Release], old: Version, new: Version) -> list[Release]:
    """Return the releases after `old` up to `new`, oldest first."""
    chosen = [release for release in releases if old < Version(release.version) <= new]
    return sorted(chosen, key=lambda release: Version(release.version))


def sentences(notes: Iterable[Note], answers: Answers) -> list[str]:
    """Return the notes that apply to a project with these answers."""
    every = [note if isinstance(note, str) else note(answers) for note in notes]
    return [sentence for sentence in every if sentence]
