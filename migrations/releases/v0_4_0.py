"""0.4.0: Docker, Kubernetes and observability."""

from __future__ import annotations

from engine.release import Answers, Release
from releases.conditions import with_celery


def _production_stays_as_it_is(answers: Answers) -> Answers:
    return {"use_docker": False, "use_kubernetes": False, "observability": [], **answers}


def _docker(answers: Answers) -> str | None:
    if answers.get("use_docker"):
        return None
    return (
        "Docker: an image, and compose for production on one host. Move Docker files of your own away, then: "
        'make update ARGS="--data use_docker=true" && make secrets'
    )


def _kubernetes(answers: Answers) -> str | None:
    if answers.get("use_kubernetes") or answers.get("database") == "sqlite":
        return None
    return (
        'Manifests for Kubernetes, beside Docker: make update ARGS="--data use_docker=true --data use_kubernetes=true" '
        "&& make secrets"
    )


def _observability(answers: Answers) -> str | None:
    have = answers.get("observability", [])
    off = [part for part in ("prometheus", "opentelemetry", "sentry") if part not in have]
    if not off:
        return None
    return (
        f"Observability: {', '.join(off)}. Name those that you want: "
        f"make update ARGS=\"--data 'observability=[{', '.join([*have, off[0]])}]'\""
    )


def _redbeat(answers: Answers) -> str | None:
    if not answers.get("use_celery") or answers.get("scheduler") != "beat":
        return None
    return 'A scheduler of which a second one takes over: make update ARGS="--data scheduler=redbeat"'


RELEASE = Release(
    "0.4.0",
    answers=_production_stays_as_it_is,
    changes=(
        with_celery(
            "On SIGTERM a worker requeues what it has not finished after CELERY_SOFT_SHUTDOWN_TIMEOUT (20 s), where "
            "it waited without limit: raise it for long tasks, and allow 10 s more until it is killed."
        ),
        with_celery("A scheduled task without `expires` of its own is dropped when the next one is due."),
        with_celery("GET /ready asks for beat too where there is a schedule."),
    ),
    offers=(_docker, _kubernetes, _observability, _redbeat),
)
