"""0.8.0: current with its ecosystem."""

from __future__ import annotations

from engine.release import Answers, Release


def _runbooks(answers: Answers) -> str | None:
    if "prometheus" not in answers.get("observability", []):
        return None
    return (
        "Each alert in observability/rules/ has the annotation runbook_url with its section of docs/operations.md. An alert that you "
        "add needs both; tests/metrics/test_dashboards.py compares them."
    )


RELEASE = Release(
    "0.8.0",
    changes=(_runbooks,),
    steps=("Run `uv sync`, and commit uv.lock with the update.",),
)
