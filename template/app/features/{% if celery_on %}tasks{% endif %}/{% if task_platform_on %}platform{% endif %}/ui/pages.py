"""What all pages share: templates, headers, the login, forms, and errors as pages."""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from fastapi import Depends, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import ValidationError

from app.api.task_access import LOGIN_FIELDS, TaskViewer, operator_of_cookie
from app.core.config.application import app_settings
from app.core.threads import ThreadsBusy
from app.worker.broker import QueueUnavailable
from app.worker.flow_control import NotQueued
from app.worker.job_limit import TooManyJobs
from app.worker.rerun import RetryRefused
from app.worker.serializer import InvalidArguments

HOME = "/tasks/ui"
MAX_BODY = 16 * 1024
"""Bytes of a form."""

FOLDER = Path(__file__).resolve().parent
STATIC = {"ui.css": "text/css; charset=utf-8", "ui.js": "text/javascript; charset=utf-8"}

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    # With no-referrer, browsers send `Origin: null` with forms.
    "Referrer-Policy": "same-origin",
}
_LOCAL = re.compile(r"/tasks/ui(?:[/?][\w\-.~%/?&=:+@]*)?")
_MAX_FIELDS = 20


@dataclass(frozen=True)
class Link:
    """A page of the navigation."""

    path: str
    title: str


navigation = [
    Link(HOME, "Overview"),
    Link(f"{HOME}/tasks", "Tasks"),
    Link(f"{HOME}/dead-letters", "Dead letters"),
    Link(f"{HOME}/queues", "Queues"),
]
"""Features add theirs."""

DONE = {
    "cancelled": "The task is cancelled.",
    "cancelling": "The task runs: its worker ends it within seconds.",
    "retried": "This is the new task, which runs the other one again.",
    "replayed": "The message was queued again, as this task.",
    "deleted": "The dead letter is deleted.",
    "bulk": "{done} done, {refused} refused, {remaining} more match.",
    "tasks": "{done} done, {refused} refused.",
    "paused": "Paused. It is applied within seconds.",
    "resumed": "Resumed. It is applied within seconds.",
    "run": "Beat queues the task within seconds.",
    "logged-out": "You are logged out.",
}
"""What a page says after an action, by the value of `done` in its URL."""


class PageRoute(APIRoute):
    """A route whose errors are pages, which leads to the login, and which takes forms from this site only."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler."""
        handle = super().get_route_handler()

        async def handle_as_page(request: Request) -> Response:
            try:
                if request.method not in {"GET", "HEAD"}:
                    _require_same_origin(request)
                return await handle(request)
            except HTTPException as error:
                if error.status_code < HTTPStatus.BAD_REQUEST:
                    raise
                if error.status_code == HTTPStatus.UNAUTHORIZED and "text/event-stream" not in request.headers.get(
                    "Accept", ""
                ):
                    return _to_login(request)
                return error_page(request, error.status_code, str(error.detail), error.headers)
            except tuple(_STATUSES) as error:
                status = next(status for kind, status in _STATUSES.items() if isinstance(error, kind))
                return error_page(request, status, _text(error), _RETRY_AFTER.get(status))

        return handle_as_page


_STATUSES: dict[type[Exception], int] = {
    RequestValidationError: 422,
    ValidationError: 422,
    InvalidArguments: 422,
    RetryRefused: 409,
    NotQueued: 429,
    TooManyJobs: 429,
    QueueUnavailable: 503,
    ThreadsBusy: 503,
}
_RETRY_AFTER = {429: {"Retry-After": "30"}, 503: {"Retry-After": "5"}}


def _text(error: Exception) -> str:
    if isinstance(error, RequestValidationError | ValidationError):
        return "; ".join(messages(error).values())
    if isinstance(error, QueueUnavailable):
        return (
            "Redis does not answer, so that nothing can be shown or changed. Tasks that were queued are still queued. "
            "Reload this page."
        )
    if isinstance(error, ThreadsBusy):
        return "The server handles too many requests; try again later."
    return str(error)


async def page_operator(request: Request) -> TaskViewer:
    """Return the operator who is logged in to the page; see `operator_of_cookie`."""
    return await operator_of_cookie(request)


PageOperator = Annotated[TaskViewer, Depends(page_operator)]
"""The operator who is logged in to the page."""


def render(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """Return a page."""
    shared = {
        "app_name": app_settings.name,
        "home": HOME,
        "navigation": navigation,
        "path": request.url.path,
        "static": _static_url,
        "now": datetime.now(UTC),
        "notice": _notice(request.query_params),
        "login_fields": LOGIN_FIELDS,
        "is_logged_in": True,
    }
    text = _templates().get_template(template).render({**shared, **context})
    # What another program has stored may contain half of a surrogate pair.
    return HTMLResponse(text.encode(errors="backslashreplace"), status, _HEADERS)


def error_page(
    request: Request, status: int, message: str, headers: Mapping[str, str] | None = None, *, is_logged_in: bool = True
) -> Response:
    """Return an error as a page, with a link back to where the form was."""
    referer = urlsplit(request.headers.get("Referer", ""))
    query = {name: value for name, value in parse_qsl(referer.query) if not is_notice(name)}
    before = local(with_query(referer.path, **query))
    page = render(
        request, "base.html", status, title=f"Error {status}", message=message, back=before, is_logged_in=is_logged_in
    )
    page.headers.update(headers or {})
    return page


def see_other(path: str, **query: object) -> RedirectResponse:
    """Return the redirect after a form: reloading that page does nothing again."""
    return RedirectResponse(with_query(path, **query), 303, {"Cache-Control": "no-store"})


def with_query(path: str, **query: object) -> str:
    """Return a path with a query."""
    return f"{path}?{urlencode(query)}" if query else path


def path_of(*parts: str) -> str:
    """Return a path of the page; what an id contains does not change where it leads."""
    return "/".join((HOME, *(quote(part, safe="") for part in parts)))


def local(path: str | None) -> str:
    """Return the path if it is one of the page's, else its start: a link must not lead to another site."""
    return path if path and _LOCAL.fullmatch(path) and ".." not in unquote(path) else HOME


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form; raise 422 for a body that is none."""
    try:
        body = (await request.body()).decode("ascii")
        fields = parse_qsl(
            body, keep_blank_values=True, strict_parsing=bool(body), errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError as error:
        raise HTTPException(422, "The form is invalid.") from error
    return dict(fields)


def messages(error: RequestValidationError | ValidationError) -> dict[str, str]:
    """Return what is invalid, by the name of the field."""
    return {str(one["loc"][-1]) if one["loc"] else "": str(one["msg"]) for one in error.errors()}


@functools.cache
def static_file(name: str) -> tuple[bytes, str]:
    """Return a static file and a hash of it."""
    content = (FOLDER / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:16]


def _static_url(name: str) -> str:
    return f"{HOME}/static/{name}?v={static_file(name)[1]}"


def _require_same_origin(request: Request) -> None:
    """Raise 403 for a form that another site has sent. The cookie's SameSite prevents that too, but not among subdomains."""
    site, origin = request.headers.get("Sec-Fetch-Site"), urlsplit(request.headers.get("Origin", ""))
    # Browsers send the first to HTTPS and localhost only.
    is_same = site == "same-origin" if site is not None else origin.netloc == request.headers.get("Host", "-")
    if not is_same:
        raise HTTPException(403, "This form was sent from another site. Open the page itself and try again.")


def _to_login(request: Request) -> Response:
    is_read = request.method in {"GET", "HEAD"}
    if is_read and request.headers.get("Sec-Fetch-Site") == "cross-site":
        # A link elsewhere, as in an alert: SameSite=Strict keeps the cookie back until this site itself asks again.
        return render(
            request, "base.html", title="Opening", message="Opening the page …", refresh=True, is_logged_in=False
        )
    back = urlsplit(request.headers.get("Referer", "")).path if not is_read else request.url.path
    query = f"?{request.url.query}" if is_read and request.url.query else ""
    return see_other(f"{HOME}/login", next=local(back + query))


def is_notice(name: str) -> bool:
    """Return whether a parameter is about an action before the page."""
    return name == "done" or name.startswith("n_")


def _notice(query: Mapping[str, str]) -> str | None:
    text = DONE.get(query.get("done", ""))
    given = {name: query.get(f"n_{name}", "") for name in ("done", "refused", "remaining")}
    numbers = {name: int(value) if value.isdecimal() and len(value) < 10 else 0 for name, value in given.items()}
    return text and text.format_map(numbers)


@functools.cache
def _templates() -> Environment:
    environment = Environment(
        # The second is for the pages of features next to this folder.
        loader=FileSystemLoader([FOLDER / "templates", FOLDER.parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": _clock,
        "ago": _ago,
        "seconds": _seconds,
        "json": _json,
        "path": _path,
        "long": _long,
        "steps": _steps,
    }
    return environment


def _path(task_id: str, *parts: str) -> str:
    return path_of(*parts, task_id)


def _json(value: Any) -> str:
    # Not Jinja's own `tojson`, which writes < as \\u003c; what this returns is escaped as any text is.
    return json.dumps(value, ensure_ascii=False, indent=2)


def _long(text: str | None) -> str:
    """Return the class of a cell whose text may break anywhere: a name of 255 characters must not widen the page."""
    return "long" if any(len(word) > 32 for word in (text or "").split()) else ""


def _clock(time: datetime, now: datetime) -> str:
    text = time.astimezone(UTC)
    return text.strftime("%H:%M:%S UTC" if text.date() == now.date() else "%d %b %H:%M:%S UTC")


def _ago(time: datetime, now: datetime) -> str:
    seconds = (now - time).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{_seconds(seconds)} ago" if seconds >= 0 else f"in {_seconds(-seconds)}"


def _seconds(value: float | timedelta) -> str:
    """Return a duration with at most two units, as ui.js does."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min"
    if seconds < 86400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds // 86400:.0f} d {seconds % 86400 // 3600:.0f} h"


def _steps(progress: Any) -> dict[str, Any] | None:
    """Return `done`, `total` and `message` of a progress, if it is one that `progress()` has reported."""
    value = progress.get("value") if isinstance(progress, dict) else None
    if not isinstance(value, dict) or not isinstance(value.get("done"), int | float):
        return None
    total = value.get("total")
    known = total if isinstance(total, int | float) and total > 0 else None
    return {"done": value["done"], "total": known, "message": str(value.get("message") or "")}
