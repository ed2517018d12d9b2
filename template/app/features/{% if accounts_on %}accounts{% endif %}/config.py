"""Settings of tokens and password hashing."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from app.core.config import defaults
from app.core.config.base import SettingsGroup, weak_secret

_KNOWN = "development-only: everybody knows this key, so production does not start on it"
# RFC 7518, 3.2: a key is at least as long as the hash's output.
_KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}


class JwtSettings(SettingsGroup):
    """How tokens are signed and when they expire. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="JWT_")

    secret_key: SecretStr = Field(
        SecretStr(_KNOWN), min_length=1, description="Key that signs tokens; changing it ends all logins."
    )
    algorithm: Literal["HS256", "HS384", "HS512"] = Field(
        "HS256", description="Signature algorithm: HS256, HS384 or HS512."
    )
    access_token_expiration: int = Field(1800, ge=10, le=86400, description="Lifetime of an access token.")
    refresh_token_expiration: int = Field(
        604_800,
        ge=60,
        le=31_536_000,
        description="Lifetime of a refresh token: when an unused login ends. Only for complete accounts.",
    )
    issuer: str = Field(defaults.SLUG, min_length=1, max_length=200, description="The `iss` claim of tokens.")
    audience: str = Field(defaults.SLUG, min_length=1, max_length=200, description="The `aud` claim of tokens.")

    def audit(self) -> list[str]:
        """Return one sentence for each setting that is not safe for production."""
        key = self.secret_key.get_secret_value()
        if key == _KNOWN or weak_secret(key):
            return ["JWT_SECRET_KEY is a default, weak or placeholder secret; set a random one."]
        needed = _KEY_BYTES[self.algorithm]
        if len(key.encode()) < needed:
            return [f"JWT_SECRET_KEY is too short for {self.algorithm}; it needs at least {needed} bytes."]
        return []


class PasswordSettings(SettingsGroup):
    """Limits of password hashing."""

    model_config = SettingsConfigDict(env_prefix="PASSWORD_")

    hash_concurrency: int = Field(
        2, ge=1, le=32, description="How many passwords a process hashes at the same time; each needs 64 MiB of memory."
    )


jwt_settings = JwtSettings()
password_settings = PasswordSettings()
