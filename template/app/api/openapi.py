"""What routes answer but results, in the OpenAPI document: FastAPI knows of 422 alone, and of another form of it."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_REFERENCE = "#/components/schemas/"
_UNREADABLE = "The body is not what its Content-Type says, or was broken off"
_TOO_LARGE = "The body is larger than the route takes"
_NO_LOGIN = "No access token, or one that is not good"
_UNAVAILABLE = "Redis does not answer; try again after Retry-After"


class Refusal(BaseModel):
    """Why a request was refused, for a person."""

    detail: str


class Problem(BaseModel):
    """What is wrong with a part of a request, and where it is."""

    type: str
    loc: list[str | int]
    msg: str


class InvalidRequest(BaseModel):
    """What is wrong with a request: the one form of 422."""

    detail: list[Problem]


def document_answers(app: FastAPI) -> None:
    """Complete what GET /openapi.json says of the application's routes."""
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
    answers: dict[str, Any] = operation["responses"]
    if "requestBody" in operation:
        answers.setdefault("400", {"description": _UNREADABLE})
        answers.setdefault("413", {"description": _TOO_LARGE})
    if "security" in operation:
        answers.setdefault("401", {"description": _NO_LOGIN})
    # Who counts does so in Redis.
    if "429" in answers:
        answers.setdefault("503", {"description": _UNAVAILABLE})
    for status, answer in answers.items():
        if status == "422":
            answer["content"] = _json(InvalidRequest)
        elif status >= "400":
            answer.setdefault("content", _json(Refusal))


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"{_REFERENCE}{model.__name__}"}}}
