"""Settings of notifications."""

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup, is_local


class NotificationSettings(SettingsGroup):
    """The webhook that receives notifications, and its rate limit."""

    model_config = SettingsConfigDict(env_prefix="NOTIFICATION_")

    webhook_url: str = Field(
        "",
        max_length=1000,
        description="URL that notifications are posted to: https://, or http:// on this machine. Empty sends none.",
    )
    webhook_secret: SecretStr = Field(
        SecretStr(""), description="Key that signs notifications, shared with the receiver; required in production."
    )
    id_secret: SecretStr = Field(
        SecretStr(""),
        description="Key that makes the task ids of bulk calls unguessable; empty means NOTIFICATION_WEBHOOK_SECRET, "
        "which the receiver knows.",
    )
    timeout: float = Field(
        10, ge=0.1, le=20, description="Timeout in seconds for each step of a request to the receiver."
    )
    bulk_per_minute: int = Field(
        600,
        ge=1,
        le=100_000,
        description="Rate limit of bulk notifications per minute, for all calls and workers together.",
    )

    @field_validator("webhook_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value and (not value.startswith(("http://", "https://")) or not urlsplit(value).hostname):
            raise ValueError("must start with https:// or http:// and have a host")
        if "@" in urlsplit(value).netloc:
            raise ValueError("must not have a user name or password; the receiver verifies the signature")
        return value

    def audit(self) -> list[str]:
        """Return one sentence for each setting that is not safe for production."""
        problems = super().audit()
        if not self.webhook_url:
            return problems
        parts = urlsplit(self.webhook_url)
        if parts.scheme != "https" and not is_local(parts.hostname):
            problems.append("NOTIFICATION_WEBHOOK_URL sends notifications unencrypted; use https://.")
        if not self.webhook_secret.get_secret_value():
            problems.append("NOTIFICATION_WEBHOOK_SECRET is empty, so the receiver cannot verify the sender; set it.")
        return problems


notification_settings = NotificationSettings()
