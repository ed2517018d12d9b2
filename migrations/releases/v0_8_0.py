"""0.8.0: current with its ecosystem."""

from __future__ import annotations

from engine.release import Answers, Release


def _workflows(answers: Answers) -> str | None:
    if answers.get("ci") != "github":
        return None
    return (
        ".github/workflows/audit.yml looks up the packages in the vulnerability database OSV every day; its first lines say how to "
        "ignore an advisory. The weekly update runs only if the template has a newer release."
    )


def _gateway(answers: Answers) -> str | None:
    if not answers.get("use_kubernetes"):
        return None
    return (
        "kubernetes/gateway/ routes a host name to the API with the Gateway API. No overlay uses it until you add it: see "
        '"Host name and TLS" in docs/kubernetes.md. Your Ingress keeps working.'
    )


def _runbooks(answers: Answers) -> str | None:
    if "prometheus" not in answers.get("observability", []):
        return None
    return (
        "Each alert in observability/rules/ has the annotation runbook_url with its section of docs/operations.md. An alert that you "
        "add needs both; tests/metrics/test_dashboards.py compares them."
    )


RELEASE = Release(
    "0.8.0",
    changes=(_workflows, _gateway, _runbooks),
    steps=("Run `uv sync`, and commit uv.lock with the update.",),
)
