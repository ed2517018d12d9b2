"""Every combination that the questions allow gives a sound project."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from allpairspy import AllPairs
from pytest_copie.plugin import Copie

from tests.conftest import Renderer
from tests.copy.sound import files, problems

# One row a question; test_every_option_is_varied holds this table against copier.yml.
OPTIONS: dict[str, list[Any]] = {
    "profile": ["minimal", "standard", "production"],
    "database": ["postgresql", "mysql", "sqlite"],
    "auth": ["complete", "basic", "none"],
    "use_celery": [True, False],
    "task_examples": [[], ["email"], ["data_processing", "reports", "images", "cleanup", "notifications", "backup"]],
    "use_redis": [True, False],
    "scheduler": ["beat", "redbeat", "none"],
    "timezone": ["UTC", "America/Port-au-Prince"],
    "task_platform": [True, False],
    "use_flower": [True, False],
    "use_docker": [True, False],
    "use_kubernetes": [True, False],
    "observability": [[], ["prometheus"], ["opentelemetry", "sentry"], ["prometheus", "opentelemetry", "sentry"]],
    "use_cors": [True, False],
    "ci": ["github", "none"],
    "license": ["mit", "apache-2.0", "proprietary"],
    "python_version": ["3.11", "3.12", "3.13", "3.14"],
}
TEXTS = {"project_name", "project_slug", "description", "author_name", "author_email", "copyright_year"}


def combinations(strength: int) -> list[dict[str, Any]]:
    """Return answers in which each choice of `strength` options occurs together with each other choice of them."""

    def allowed(row: list[Any]) -> bool:
        answers = dict(zip(OPTIONS, row, strict=False))
        return not (
            (answers.get("auth") == "complete" and answers.get("use_celery") is False)
            or (answers.get("database") == "sqlite" and answers.get("use_kubernetes") is True)
        )

    pairs = AllPairs(list(OPTIONS.values()), n=strength, filter_func=allowed)
    return [dict(zip(OPTIONS, row, strict=True)) for row in pairs]


def name(answers: dict[str, Any]) -> str:
    """Return a readable test id."""
    return "-".join(str(value).lower() for value in answers.values())


def test_every_option_is_varied(questions: dict[str, dict[str, Any]], asked: set[str]) -> None:
    assert set(OPTIONS) | TEXTS == asked
    for option, values in OPTIONS.items():
        question = questions[option]
        if question.get("multiselect"):
            assert {choice for value in values for choice in value} == set(question["choices"].values())
            continue
        if question["type"] == "str" and "choices" not in question:
            assert len(set(values)) > 1, option
            continue
        choices = question.get("choices", [True, False])
        offered = list(choices.values()) if isinstance(choices, dict) else list(choices)
        assert sorted(map(str, offered)) == sorted(map(str, values)), option


def test_defaults_with_pytest_copie(copie: Copie, template: Path) -> None:
    result = copie.copy(template_dir=template)
    assert result.exception is None
    assert result.exit_code == 0
    assert result.answers["profile"] == "standard"
    assert result.project_dir is not None
    assert (result.project_dir / "app" / "main.py").is_file()
    assert (result.project_dir / "app" / "core" / "celery.py").is_file()


@pytest.mark.parametrize(("profile", "database"), list(product(OPTIONS["profile"], OPTIONS["database"])))
def test_profile_on_database(render: Renderer, profile: str, database: str) -> None:
    project = render({"profile": profile, "database": database})
    assert problems(project) == []
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text(encoding="utf-8"))
    assert (answers["profile"], answers["database"]) == (profile, database)
    driver = {"postgresql": "asyncpg", "mysql": "aiomysql", "sqlite": "aiosqlite"}[database]
    assert driver in (project / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("answers", combinations(2), ids=name)
def test_pairwise(render: Renderer, answers: dict[str, Any]) -> None:
    assert problems(render(answers)) == []


@pytest.mark.matrix
@pytest.mark.parametrize("answers", combinations(3), ids=name)
def test_threewise(render: Renderer, answers: dict[str, Any]) -> None:
    assert problems(render(answers)) == []


def test_features_leave_nothing_behind(render: Renderer) -> None:
    """Without a feature none of its files, packages or settings is there."""
    project = render({"profile": "minimal", "database": "sqlite", "use_celery": False, "use_redis": False})
    names = files(project)
    assert [name for name in names if "celery" in name or "tasks/" in name or "worker/" in name] == []
    pyproject = (project / "pyproject.toml").read_text(encoding="utf-8")
    for package in ("celery", "redis", "flower", "asyncpg", "argon2", "reportlab", "aiomysql", "sentry-sdk"):
        assert package not in pyproject.split("constraint-dependencies")[0].lower()
        assert f'"{package}==' not in pyproject
    secrets = (project / "secret" / ".env.development").read_text(encoding="utf-8")
    assert [line for line in secrets.splitlines() if line.startswith(("CELERY_", "REDIS_", "CORS_"))] == []


def test_options_without_celery_have_no_effect(render: Renderer) -> None:
    """Templates read computed values: no Flower and no schedule without Celery, whatever the recorded answers say."""
    base = {"use_celery": False, "use_redis": False}
    with_raw = render({**base, "use_flower": True, "scheduler": "beat"})
    without = render({**base, "use_flower": False, "scheduler": "none"})
    # Secrets are random.
    ignored = (".copier-answers.yml", "secret/.env.")
    assert files(with_raw) == files(without)
    changed = [
        name
        for name in files(without)
        if not name.startswith(ignored) and (with_raw / name).read_bytes() != (without / name).read_bytes()
    ]
    assert changed == []
