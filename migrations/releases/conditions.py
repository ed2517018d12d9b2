"""Conditions for the sentences of a release: a sentence that only some projects need."""

from __future__ import annotations

from engine.release import Answers, Note

_ACCOUNTS = ("basic", "complete")


def with_celery(sentence: str) -> Note:
    """For projects with Celery."""
    return lambda answers: sentence if answers.get("use_celery") else None


def with_accounts(sentence: str) -> Note:
    """For projects with accounts, basic or complete."""
    return lambda answers: sentence if answers.get("auth") in _ACCOUNTS else None


def with_accounts_and_celery(sentence: str) -> Note:
    """For projects with both."""
    return lambda answers: sentence if answers.get("auth") in _ACCOUNTS and answers.get("use_celery") else None


def with_complete_accounts(sentence: str) -> Note:
    """For projects with complete accounts."""
    return lambda answers: sentence if answers.get("auth") == "complete" else None


def with_schedule(sentence: str) -> Note:
    """For projects with Celery and a scheduler."""
    return lambda answers: sentence if answers.get("use_celery") and answers.get("scheduler") != "none" else None


def with_pack(pack: str, sentence: str) -> Note:
    """For projects with this task pack."""
    return with_any_pack({pack}, sentence)


def with_any_pack(packs: set[str], sentence: str) -> Note:
    """For projects with at least one of these task packs."""

    def note(answers: Answers) -> str | None:
        return sentence if answers.get("use_celery") and packs & set(answers.get("task_examples", [])) else None

    return note
