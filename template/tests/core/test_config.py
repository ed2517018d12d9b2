"""Settings: their sources, invalid values, and the audit for production."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict, SettingsError

from app.core.config import UnsafeSettings, base, load_groups, problems, require_safe_settings
from app.core.config.application import ApplicationSettings
from app.core.config.base import CommaSeparated, SettingsGroup
from app.core.config.database import DatabaseSettings, async_url
from tests import ROOT


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder for settings files that replaces the project's."""
    monkeypatch.setattr(base, "ROOT", tmp_path)
    (tmp_path / "secret").mkdir()
    return tmp_path / "secret"


def test_the_environment_overrides_the_file_and_the_file_the_default(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secret / ".env.test").write_text("APP_NAME=from the file\nAPP_VERSION=2\n")
    monkeypatch.setenv("APP_NAME", "from the process")
    settings = ApplicationSettings()
    assert (settings.name, settings.version, settings.log_format) == ("from the process", "2", "console")


def test_each_environment_has_its_file(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secret / ".env.production").write_text("APP_VERSION=9\n")
    monkeypatch.setenv("ENVIRONMENT", "production")
    assert ApplicationSettings().version == "9"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ENVIRONMENT", "prod"),
        ("LOG_LEVEL", "LOUD"),
        ("APP_MAX_BODY_BYTES", "0"),
        ("LOG_FORMAT", "xml"),
        ("APP_NAME", ""),
        ("FORWARDED_ALLOW_IPS", "*"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.1/8"),
    ],
)
def test_invalid_values_are_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError, match=variable):
        ApplicationSettings()


@pytest.mark.parametrize("value", ["0", "201", "many"])
def test_the_pool_size_is_limited(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_POOL_SIZE", value)
    with pytest.raises(ValidationError, match="pool_size"):
        DatabaseSettings()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgres://u:p%40ss%2F@h/d", "postgresql+asyncpg://u:p%40ss%2F@h/d"),
        ("postgresql://u:p@h:5433/d", "postgresql+asyncpg://u:p@h:5433/d"),
        ("postgresql+asyncpg://u@/d?host=/tmp/x", "postgresql+asyncpg://u@/d?host=%2Ftmp%2Fx"),
        ("postgresql://h/d?sslmode=require&channel_binding=require", "postgresql+asyncpg://h/d?ssl=require"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
        ("mysql://u:p%40@h/d", "mysql+aiomysql://u:p%40@h/d"),
        ("mariadb+pymysql://u@h/d", "mariadb+aiomysql://u@h/d"),
        ("sqlite:////srv/x.db", "sqlite+aiosqlite:////srv/x.db"),
        ("sqlite://", "sqlite+aiosqlite://"),
        ("sqlite+aiosqlite:///data/x.db", f"sqlite+aiosqlite:///{ROOT}/data/x.db"),
    ],
)
def test_urls_get_the_asynchronous_driver(given: str, expected: str) -> None:
    assert async_url(given).render_as_string(hide_password=False) == expected
    assert async_url(expected).render_as_string(hide_password=False) == expected


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p%40ss%2F@h/d",
        "postgresql://u:p@h:5433/d?application_name=x&ssl=require",
        "postgresql+asyncpg://u:@/d?host=/tmp/x",
        "postgresql://h/d?sslmode=require",
        "mariadb+pymysql://u@h-1.example:3306/d_1",
    ],
)
def test_settings_have_the_url_that_sqlalchemy_reads(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert DatabaseSettings().sqlalchemy_url == async_url(url)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("hunter2-is-no-url", "must be a URL"),
        ("postgre://u:hunter2@h/d", "must start with"),
        ("postgresql://u:x@hunter2@h/d", "has an @ after the host"),
    ],
)
def test_an_invalid_url_is_refused_without_printing_it(url: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(ValidationError, match=rule) as caught:
        DatabaseSettings()
    assert "hunter2" not in str(caught.value)


def test_no_secret_appears_in_the_repr_of_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for group in load_groups():
        for field, info in type(group).model_fields.items():
            if "Secret" in str(info.annotation):
                text = "hunter2-hunter2"
                url = field.endswith(("url", "backend", "dsn"))
                scheme = {"url": "postgresql", "dsn": "https"}.get(field, "redis")
                monkeypatch.setenv(type(group).variable(field), f"{scheme}://u:{text}@h/1" if url else text)
    assert "hunter2" not in "".join(repr(group) + str(group) for group in load_groups())


class _Secrets(SettingsGroup):
    model_config = SettingsConfigDict(env_prefix="X_")

    password: SecretStr = Field(SecretStr("default"))
    token: SecretStr | None = Field(None, validation_alias="TOKEN")
    name: str = Field("plain")


def test_a_secret_can_be_read_from_a_file(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secret / ".env.test").write_text("X_PASSWORD=from the settings file\n")
    for variable in ("X_PASSWORD", "TOKEN", "X_NAME"):
        (secret / variable).write_text(f" {variable.lower()}\n")
        monkeypatch.setenv(f"{variable}_FILE", str(secret / variable))
    found = _Secrets()
    assert found.password.get_secret_value() == " x_password"
    assert found.token is not None
    assert found.token.get_secret_value() == " token"
    assert found.name == "plain"


def test_every_secret_of_the_application_can_be_read_from_a_file(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [(type(one), field) for one in load_groups() for field in type(one).model_fields]
    secrets = [(group, field) for group, field in fields if "Secret" in str(group.model_fields[field].annotation)]
    assert secrets
    for group, field in secrets:
        variable = group.variable(field)
        url = field.endswith(("url", "backend", "dsn"))
        scheme = {"DATABASE_URL": "postgresql", "SENTRY_DSN": "https"}.get(variable, "redis")
        (secret / variable).write_text(f"{scheme}://u:hunter2-hunter2@h/1\n" if url else "hunter2-hunter2\n")
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv(f"{variable}_FILE", str(secret / variable))
    for group, field in secrets:
        assert "hunter2-hunter2" in getattr(group(), field).get_secret_value(), group.variable(field)


def test_an_unreadable_secret_file_is_an_error(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_PASSWORD_FILE", str(secret / "missing"))
    with pytest.raises(SettingsError, match=r"X_PASSWORD_FILE=.*missing cannot be read"):
        _Secrets()
    monkeypatch.setenv("X_PASSWORD", "as well")
    with pytest.raises(SettingsError, match="X_PASSWORD and X_PASSWORD_FILE are both set"):
        _Secrets()


class _Lists(SettingsGroup):
    parts: CommaSeparated = Field([])


@pytest.mark.parametrize(
    ("text", "expected"), [("a, b,,c ", ["a", "b", "c"]), ("", []), ('["a,b"]', ["a,b"]), ("*", ["*"])]
)
def test_lists_are_comma_separated(text: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTS", text)
    assert _Lists().parts == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://app:postgres@db/x", "DATABASE_URL has a default"),
        ("postgresql://app:%3Crandom:database_password%3E@db/x", "DATABASE_URL has a default"),
        ("postgresql://app@db/x", "DATABASE_URL has no password for db"),
        ("postgresql://app:x7Gq-2mN_4kPz9@db/x", None),
        ("postgresql://app@/x?host=/run/postgresql", None),
    ],
)
def test_the_audit_finds_weak_passwords(url: str, problem: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    problems = DatabaseSettings().audit()
    assert [problem for _ in problems] == ([problem] if problem else [])
    assert all(found.startswith(problem or "-") for found in problems)


@pytest.mark.parametrize(("environment", "starts"), [("development", True), ("staging", False), ("production", False)])
def test_production_does_not_start_with_default_secrets(
    environment: str, starts: bool, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENT", environment)
    monkeypatch.setenv("DATABASE_URL", "postgresql://postgres:postgres@localhost/x")
    if starts:
        require_safe_settings()
    else:
        with pytest.raises(UnsafeSettings, match="DATABASE_URL has a default"):
            require_safe_settings()


def _start(code: str, **variables: str) -> tuple[int, str]:
    """Run Python code in a new process; return its exit code and stderr."""
    environment = {**os.environ, **variables}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return result.returncode, result.stderr


@pytest.mark.processes
def test_the_application_exits_with_default_secrets_in_production() -> None:
    code, errors = _start(
        "import app.main", ENVIRONMENT="production", DATABASE_URL="postgresql://postgres:postgres@db/x"
    )
    assert code == 2
    assert "Traceback" not in errors
    assert "DATABASE_URL has a default" in errors


def test_every_problem_is_a_line_with_variable_place_and_rule() -> None:
    code, errors = _start(
        "import app.core.config",
        LOG_LEVEL="LOUD",
        DATABASE_POOL_SIZE="many",
        DATABASE_URL="hunter2-is-no-url",
        APP_VERSON="2",
    )
    assert code == 2
    assert sorted(errors.splitlines()) == [
        "APP_VERSON (in the process environment) is not a setting. Did you mean APP_VERSION? Otherwise rename it.",
        "DATABASE_POOL_SIZE='many' (in the process environment): must be a valid integer, unable to parse it.",
        "DATABASE_URL (in the process environment): must be a URL such as postgresql://user:password@host/name.",
        "LOG_LEVEL='LOUD' (in the process environment): must be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'.",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("LOG_FORMAT=json\nLOG_LEVEL=LOUD\n", "LOG_LEVEL='LOUD' (in secret/.env.test, line 2): must be"),
        ("APP_NAMES=x\n", "APP_NAMES (in secret/.env.test, line 1) is not a setting. Did you mean APP_NAME?"),
        ("LOG_LEVEL\n", "secret/.env.test, line 1 is not NAME=value"),
        ("\nAPP_NAME='x\n", "secret/.env.test, line 2 is not NAME=value"),
        ("APP_NAME=caf\xe9\n", "secret/.env.test is not encoded in UTF-8"),
        ("SECRET_OF_MY_OWN=1\nDATABASE_URL_2=x\n", None),
    ],
)
def test_a_problem_in_a_file_names_the_line(
    text: str, line: str | None, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problems, "ROOT", secret.parent)
    (secret / ".env.test").write_bytes(text.encode("latin-1"))
    found = [problem for problem in problems.find_problems() if "X_PASSWORD" not in problem]
    assert [problem.startswith(line or "-") for problem in found] == ([True] if line else [])


def test_an_address_set_by_a_cluster_is_not_a_misspelled_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, slips in (("tcp://10.0.0.7:25", 0), ("json", 1)):
        monkeypatch.setenv("LOG_FORMATS", value)
        assert len([problem for problem in problems.find_problems() if "LOG_FORMATS" in problem]) == slips


@pytest.mark.parametrize("password", ["hun@ter", "hun/ter", "hun#ter", "hun?ter", "hun:ter", "hun%ter", "hun[ter"])
def test_no_part_of_a_password_is_printed(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        type(group).variable(field)
        for group in load_groups()
        for field, value in vars(group).items()
        if isinstance(value, SecretStr) and "://" in value.get_secret_value()
    ]
    assert "DATABASE_URL" in names
    for name in names:
        scheme = "postgresql" if name == "DATABASE_URL" else "redis"
        # Nor does it appear in the message about another problem.
        for url in (
            f"{scheme}://me:{password}@h/1",
            f"{scheme}://me:{password}@h:port/1",
            f"nothing://me:{password}@h/x",
        ):
            monkeypatch.setenv(name, url)
            found = " ".join(problems.find_problems())
            assert not {"hun", "ter"} & set(re.findall(r"\w+", found)), found
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("LOG_LEVL", "LOG_LEVEL", True),
        ("LOGLEVEL", "LOG_LEVEL", True),
        ("APP_NMAE", "APP_NAME", True),
        ("DATABASE_URI", "DATABASE_URL", True),
        ("CELERY_TIMEZON", "CELERY_TIMEZONE", True),
        ("CELERY_TIME_ZONE", "CELERY_TIMEZONE", True),
        ("DATABASE_URL_2", "DATABASE_URL", False),
        ("APP_HOME", "APP_NAME", False),
        ("METRICS_PORT", "METRICS_HOST", False),
        ("DATABASE_HOST", "DATABASE_ECHO", False),
        ("CORS_ALLOWED_ORIGIN", "CORS_ALLOWED_ORIGINS", True),
        ("EMAIL_PORT", "EMAIL_HOST", False),
    ],
)
def test_only_a_near_name_counts_as_misspelled(name: str, known: str, near: bool) -> None:
    assert problems.is_near(name, known) is near


def test_a_renamed_setting_is_read_under_its_old_name_and_the_new_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_MAX_BODY", "2048")
    assert ApplicationSettings().max_body_bytes == 2048
    monkeypatch.setenv("APP_MAX_BODY_BYTES", "4096")
    assert ApplicationSettings().max_body_bytes == 4096
