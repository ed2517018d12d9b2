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
        moved: files, old path to new; a path that ends with a slash is a folder. The most specific entry applies, and
            one that matches nothing does nothing. May be a function of the new answers.
        renamed: settings, old name to new.
        names: what code can no longer use, old name to new: dotted names of modules and of attributes, options, and packages as
            "import NAME". May be a function of the new answers.
        changes: what behaves differently.
        steps: what the owner has to do by hand.
        offers: what is new, and switched off in older projects.
    """

    version: str
    answers: Callable[[Answers], Answers] = _unchanged
    moved: Mapping[str, str] | Callable[[Answers], Mapping[str, str]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] | Callable[[Answers], Mapping[str, str]] = field(default_factory=dict)
    changes: Sequence[Note] = ()
    steps: Sequence[Note] = ()
    offers: Sequence[Note] = ()

    def moves(self, answers: Answers) -> Mapping[str, str]:
        """Return the files that this release moved in a project with these answers."""
        return self.moved(answers) if callable(self.moved) else self.moved

    def removed_names(self, answers: Answers) -> Mapping[str, str]:
        """Return the names that code of a project with these answers can no longer use."""
        return self.names(answers) if callable(self.names) else self.names


def between(releases: Iterable[Release], old: Version, new: Version) -> list[Release]:
    """Return the releases after `old` up to `new`, oldest first."""
    chosen = [release for release in releases if old < Version(release.version) <= new]
    return sorted(chosen, key=lambda release: Version(release.version))


def sentences(notes: Iterable[Note], answers: Answers) -> list[str]:
    """Return the notes that apply to a project with these answers, what several releases say once."""
    every = [note if isinstance(note, str) else note(answers) for note in notes]
    return list(dict.fromkeys(sentence for sentence in every if sentence))
