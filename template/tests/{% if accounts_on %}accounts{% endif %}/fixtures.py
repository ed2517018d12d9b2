"""Cheap password hashes in every test, as real ones take a tenth of a second each; `real_hashes` brings those back."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def cheap_hashes() -> Iterator[None]:
    """Hash passwords with little memory."""
    from argon2 import PasswordHasher

    from app.features.accounts import security

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(security, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
        yield


@pytest.fixture
def real_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords as the application does."""
    from argon2 import PasswordHasher

    from app.features.accounts import security

    monkeypatch.setattr(security, "_hasher", PasswordHasher())
