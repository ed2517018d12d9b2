"""Redis users that lack a permission are named by what they lack, where a worker starts and in the audit."""

import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from pydantic import SecretStr

from app.core.config.celery import celery_settings
from app.worker import permissions


@pytest.fixture
def user() -> Iterator[Any]:
    """Give a function that makes a Redis user with the rules given, and returns its URL of the broker's database."""
    url = celery_settings.broker_url.get_secret_value()
    admin: Any = redis.Redis.from_url(url)
    names: list[str] = []

    def make(*rules: str) -> str:
        name, password = f"user-{secrets.token_hex(4)}", secrets.token_hex(8)
        names.append(name)
        admin.execute_command("ACL", "SETUSER", name, "on", f">{password}", *rules)
        parts = urlsplit(url)
        return f"redis://{name}:{password}@{parts.hostname}:{parts.port}{parts.path}"

    yield make
    for name in names:
        admin.execute_command("ACL", "DELUSER", name)
    admin.close()


def test_the_permissions_that_are_documented_are_enough(user: Any) -> None:
    with redis.Redis.from_url(user(*permissions.NEEDED.split())) as client:
        assert permissions.missing_permissions(client) == []


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        ("~* +@all -@dangerous +info", ["publish to channels", "subscribe to channels"]),
        ("~* &* +@all -@scripting", ["run scripts"]),
    ],
)
def test_what_a_user_lacks_is_named(user: Any, monkeypatch: pytest.MonkeyPatch, rules: str, missing: list[str]) -> None:
    url = user(*rules.split())
    with redis.Redis.from_url(url) as client:
        assert permissions.missing_permissions(client) == missing
    monkeypatch.setattr(celery_settings, "broker_url", SecretStr(url))
    with pytest.raises(PermissionError, match=f"CELERY_BROKER_URL may not {missing[0]}") as caught:
        permissions.require_permissions()
    assert str(urlsplit(url).password) not in str(caught.value)


def test_what_a_worker_can_live_without_is_for_the_audit_alone(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = user("~celery*", "&*", "+@all", "-@dangerous")
    with redis.Redis.from_url(url) as client:
        assert permissions.missing_permissions(client) == ["read INFO"]
    monkeypatch.setattr(celery_settings, "broker_url", SecretStr(url))
    permissions.require_permissions()
