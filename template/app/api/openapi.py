"""Add error responses to the OpenAPI document. FastAPI documents only 422, and with a different schema."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_REFERENCE = "#/components/schemas/"
_UNREADABLE = "The body is incomplete or does not match its Content-Type"
_TOO_LARGE = "The body exceeds the route's size limit"
_NO_LOGIN = "The access token is missing, invalid or expired"
_UNAVAILABLE = "Redis is unavailable; try again after the seconds in Retry-After"


class Refusal(BaseModel):
    """A readable reason why the request was rejected."""

    detail: str


class Problem(BaseModel):
    """A validation error: its type, location and message."""

    type: str
    loc: list[str | int]
    msg: str


class InvalidRequest(BaseModel):
    """The body of every 422 response."""

    detail: list[Problem]


def document_error_responses(app: FastAPI) -> None:
    """Add the error responses of all routes to GET /openapi.json."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generate())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    for path in document.get("paths", {}).values():
        for operation in path.values():
            _complete(operation)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    models: Any = [(model, "serialization") for model in (Refusal, InvalidRequest)]
    schemas |= models_json_schema(models, ref_template=_REFERENCE + "{model}")[1]["$defs"]
    return document


def _complete(operation: dict[str, Any]) -> None:
    responses: dict[str, Any] = operation["responses"]
    if "requestBody" in operation:
        responses.setdefault("400", {"description": _UNREADABLE})
        responses.setdefault("413", {"description": _TOO_LARGE})
    if "security" in operation:
        responses.setdefault("401", {"description": _NO_LOGIN})
    # Rate limits are counted in Redis.
    if "429" in responses:
        responses.setdefault("503", {"description": _UNAVAILABLE})
    for status, response in responses.items():
        if "application/problem+json" in response.get("content", {}):
            continue
        if status == "422":
            response["content"] = _json(InvalidRequest)
        elif status >= "400":
            response.setdefault("content", _json(Refusal))


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"{_REFERENCE}{model.__name__}"}}}
