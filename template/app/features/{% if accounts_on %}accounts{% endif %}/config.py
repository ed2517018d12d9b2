"""Settings of access tokens and of password hashing."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from app.core.config import defaults
from app.core.config.base import SettingsGroup, weak_secret

_KNOWN = "development-only: everybody knows this key, so production does not start on it"
# RFC 7518, 3.2: a key is at least as long as the hash's output.
_KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}


class JwtSettings(SettingsGroup):
    """How access tokens are signed and how long a login lasts. Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="JWT_")

    secret_key: SecretStr = Field(
        SecretStr(_KNOWN), min_length=1, description="Signs tokens. Another one ends every login."
    )
    algorithm: Literal["HS256", "HS384", "HS512"] = Field("HS256", description="HS256, HS384 or HS512.")
    access_token_expiration: int = Field(1800, ge=10, le=86400, description="How long an access token is good.")
    refresh_token_expiration: int = Field(
        604_800,
        ge=60,
        le=31_536_000,
        description="How long a login lasts that is not refreshed, where accounts are complete.",
    )
    issuer: str = Field(defaults.SLUG, min_length=1, max_length=200, description="Who gives the tokens out.")
    audience: str = Field(defaults.SLUG, min_length=1, max_length=200, description="Whom they are for.")

    def audit(self) -> list[str]:
        """Return what is not fit for production."""
        key = self.secret_key.get_secret_value()
        if key == _KNOWN or weak_secret(key):
            return ["JWT_SECRET_KEY is a default, weak or unfilled secret: set a random one."]
        needed = _KEY_BYTES[self.algorithm]
        if len(key.encode()) < needed:
            return [f"JWT_SECRET_KEY is too short for {self.algorithm}: it needs {needed} bytes."]
        return []


class PasswordSettings(SettingsGroup):
    """How many passwords are hashed at the same time."""

    model_config = SettingsConfigDict(env_prefix="PASSWORD_")

    hash_concurrency: int = Field(
        2, ge=1, le=32, description="Passwords hashed at the same time in a process: each takes 64 MiB of memory."
    )


jwt_settings = JwtSettings()
password_settings = PasswordSettings()
