"""Settings of notifications."""

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup, is_local


class NotificationSettings(SettingsGroup):
    """Which service takes notifications, and how many."""

    model_config = SettingsConfigDict(env_prefix="NOTIFICATION_")

    webhook_url: str = Field(
        "",
        max_length=1000,
        description="Address that notifications are posted to; https:// or, on this machine, http://. Empty: none are sent.",
    )
    webhook_secret: SecretStr = Field(
        SecretStr(""), description="Signs what is posted; the receiver has the same. Production wants one."
    )
    id_secret: SecretStr = Field(
        SecretStr(""),
        description="Keys the ids of bulk calls' tasks, so that nobody can guess them; empty is the secret above, "
        "which the receiver knows.",
    )
    timeout: float = Field(10, ge=0.1, le=20, description="Seconds to wait for the receiver at each step.")
    bulk_per_minute: int = Field(
        600, ge=1, le=100_000, description="Notifications of bulk calls a minute, all workers and calls together."
    )

    @field_validator("webhook_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value and (not value.startswith(("http://", "https://")) or not urlsplit(value).hostname):
            raise ValueError("must start with https:// or http:// and name a host")
        if "@" in urlsplit(value).netloc:
            raise ValueError("must not hold a login: the receiver checks the signature")
        return value

    def audit(self) -> list[str]:
        """Return what is not fit for production."""
        problems = super().audit()
        if not self.webhook_url:
            return problems
        parts = urlsplit(self.webhook_url)
        if parts.scheme != "https" and not is_local(parts.hostname):
            problems.append("NOTIFICATION_WEBHOOK_URL is not https://: notifications would travel unencrypted.")
        if not self.webhook_secret.get_secret_value():
            problems.append("NOTIFICATION_WEBHOOK_SECRET is empty: the receiver could not tell who posts.")
        return problems


notification_settings = NotificationSettings()
