"""Settings of the mail server and the sender."""

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from app.core.config import defaults
from app.core.config.base import SettingsGroup, is_local, weak_secret
from app.core.mail_address import MAX_LENGTH, sendable


class EmailSettings(SettingsGroup):
    """The mail server and the sender."""

    model_config = SettingsConfigDict(env_prefix="EMAIL_")

    host: str = Field(
        "localhost", min_length=1, max_length=253, description="Host of the mail server; `make dev` runs one."
    )
    port: int = Field(1025, ge=1, le=65535, description="Port: usually 587 with EMAIL_USE_TLS, 465 with EMAIL_USE_SSL.")
    host_user: str = Field("", max_length=254, description="User name; empty means no authentication.")
    host_password: SecretStr = Field(SecretStr(""), description="Password of that user.")
    use_tls: bool = Field(False, description="Connect without TLS, then upgrade (STARTTLS).")
    use_ssl: bool = Field(False, description="Connect with TLS.")
    timeout: float = Field(10, ge=0.1, le=300, description="Seconds to wait for each response of the server.")
    from_name: str = Field(defaults.NAME, max_length=100, description="Name of the sender in mails.")
    from_email: str = Field(
        defaults.EMAIL,
        max_length=MAX_LENGTH,
        description="Address of the sender; the part before the @ must be ASCII.",
    )

    @field_validator("from_email")
    @classmethod
    def _can_be_sent_from(cls, value: str) -> str:
        try:
            return sendable(value)
        except ValueError as error:
            raise ValueError(f"EMAIL_FROM_EMAIL {error}") from error

    @model_validator(mode="after")
    def _one_kind_of_tls(self) -> "EmailSettings":
        if self.use_tls and self.use_ssl:
            raise ValueError(
                "EMAIL_USE_TLS and EMAIL_USE_SSL are both on; use the first for port 587, the second for 465"
            )
        return self

    def audit(self) -> list[str]:
        """Return one sentence for each setting that is not safe for production."""
        if not self.host_user:
            return []
        problems = []
        if weak_secret(self.host_password.get_secret_value()):
            problems.append(
                "EMAIL_HOST_PASSWORD is empty or a default, weak or placeholder password; set the server's."
            )
        if not (self.use_tls or self.use_ssl or is_local(self.host)):
            problems.append("EMAIL_USE_TLS and EMAIL_USE_SSL are off: the password is sent unencrypted. Turn one on.")
        return problems


email_settings = EmailSettings()
