"""The audit checks of the broker, the result store and the workers."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.core.audit import Finding, Unmet, failure_of, no_answer, problem
from app.core.config.base import is_local
from app.core.config.celery import celery_settings, worker_settings
from app.core.config.redis import redis_settings
from app.worker import liveness, permissions
from app.worker.broker import broker_client, results_client

_VARIABLES = {"broker": "CELERY_BROKER_URL", "results": "CELERY_RESULT_BACKEND"}


async def worker_findings() -> AsyncIterator[Finding]:
    """Check what the workers run tasks in."""
    pool, number = worker_settings.pool, worker_settings.concurrency
    match pool:
        case "solo":
            text = "WORKER_POOL is solo, which enforces no time limit; set prefork or threads."
            yield problem("workers", text)
        case "threads":
            tasks = f"{number} `def` and {celery_settings.async_concurrency} `async def` tasks at a time"
            yield Finding("ok", "workers", f"WORKER_POOL is threads: {tasks}")
        case _:
            yield Finding("ok", "workers", f"WORKER_POOL is prefork: {number} tasks at a time, each in a process")


async def broker_findings() -> AsyncIterator[Finding]:
    """Check the Redis databases of queues and results, and that a worker is running."""
    reachable = []
    for name in _VARIABLES:
        failure = await failure_of(_with_client(name, lambda redis: redis.ping()))
        if failure:
            yield no_answer(f"redis ({name})", failure)
        else:
            reachable.append(name)
            yield Finding("ok", f"redis ({name})", "reachable")
    for name in reachable:
        for require, text in (
            (_require_persistence, "keeps its data at a restart"),
            (functools.partial(_require_permissions, _VARIABLES[name]), "has all permissions"),
        ):
            failure = await failure_of(_with_client(name, require))
            yield problem(f"redis ({name})", failure) if failure else Finding("ok", f"redis ({name})", text)
    yield _databases_finding()
    yield await liveness_finding("worker")


async def liveness_finding(part: str) -> Finding:
    """Check that a process has sent a heartbeat: `worker`, `beat` or `schedule`."""
    if await failure_of(_with_client("broker", lambda redis: redis.ping())):
        return Finding("skipped", part, "Redis is unreachable")
    failure = await failure_of(liveness.check(part))
    return problem(part, f"{failure}. Check that it is running.") if failure else Finding("ok", part, "has a heartbeat")


def _with_client(name: str, use: Callable[[Any], Any]) -> Callable[[], Awaitable[Any]]:
    def call() -> Any:
        if name == "results":
            return use(results_client())
        with broker_client() as client:
            return use(client)

    return lambda: asyncio.to_thread(call)


def _require_persistence(redis: Any) -> None:
    """Raise Unmet if this server may lose tasks. Uses INFO, because hosting services forbid CONFIG."""
    problems = []
    policy = redis.info("memory").get("maxmemory_policy")
    if policy != "noeviction":
        problems.append(f"maxmemory-policy is {policy}, which evicts tasks and results; set noeviction.")
    if not redis.info("persistence").get("aof_enabled"):
        problems.append("appendonly is off, so a restart loses tasks and results; set appendonly yes.")
    if problems:
        raise Unmet(" ".join(problems))


def _require_permissions(variable: str, redis: Any) -> None:
    missing = permissions.missing_permissions(redis)
    if missing:
        raise Unmet(permissions.explain(variable, missing))


def _databases_finding() -> Finding:
    urls = {
        "REDIS_CONNECTION_URL": redis_settings.connection_url,
        "CELERY_BROKER_URL": celery_settings.broker_url,
        "CELERY_RESULT_BACKEND": celery_settings.result_backend,
    }
    users: dict[tuple[str, int, str], list[str]] = {}
    for variable, url in urls.items():
        users.setdefault(_redis_database(url), []).append(variable)
    shared = [" and ".join(variables) for variables in users.values() if len(variables) > 1]
    if shared:
        text = f"{'; '.join(shared)} use the same database; use different ones (/0, /1, /2) or different servers."
        return problem("redis databases", text)
    return Finding("ok", "redis databases", "cache, queues and results use different ones")


def _redis_database(url: SecretStr) -> tuple[str, int, str]:
    parts = urlsplit(url.get_secret_value())
    host = "localhost" if is_local(parts.hostname) else str(parts.hostname)
    return host, parts.port or 6379, parts.path.strip("/") or "0"
