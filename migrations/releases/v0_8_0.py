"""0.8.0: current with its ecosystem."""

from __future__ import annotations

from engine.release import Answers, Release
from releases.conditions import with_celery, with_pack


def _workflows(answers: Answers) -> str | None:
    if answers.get("ci") != "github":
        return None
    return (
        ".github/workflows/audit.yml looks up the packages in the vulnerability database OSV every day; its first lines say how to "
        "ignore an advisory. The weekly update runs only if the template has a newer release."
    )


def _gateway(answers: Answers) -> str | None:
    if not (answers.get("use_kubernetes") and answers.get("use_docker")):
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


def _links(answers: Answers) -> str | None:
    if not answers.get("use_celery") or "opentelemetry" not in answers.get("observability", []):
        return None
    return (
        "TRACING_LINK_FAN_OUTS=true gives each task of a fan-out a linked trace of its own: see docs/observability.md."
    )


RELEASE = Release(
    "0.8.0",
    names={"import httpx": "httpx2: import httpx2 as httpx"},
    changes=(
        "httpx2 replaces httpx, which has had no release since 2024: the same API under a new name, also in the fixture client. httpx stays "
        "installed until 0.9.0; to use it longer, run `uv add httpx`.",
        with_pack(
            "notifications",
            "Webhooks check the receiver's certificate against the certificate authorities of the system, no longer against those of the "
            "package certifi. SSL_CERT_FILE and SSL_CERT_DIR name others. An image without ca-certificates needs one of them.",
        ),
        with_celery(
            "A chord whose members wait for more than CELERY_RESULT_EXPIRES (an hour) runs its callback: it waits for "
            "CELERY_RECORDS_EXPIRE (7 days), unless its header contains a group. It used to forget them."
        ),
        with_celery(
            "Tasks with pydantic=True take models however they are queued, except in a step of a chain that lacks arguments, and `async def` "
            "ones work: see docs/write-a-task.md."
        ),
        "`make update` refuses --pretend, which reported that the project is up to date.",
        _workflows,
        _gateway,
        _runbooks,
    ),
    offers=(_links,),
    steps=("Run `uv sync`, and commit uv.lock with the update.",),
)
