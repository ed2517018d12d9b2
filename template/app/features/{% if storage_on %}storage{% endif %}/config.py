"""Settings of the file storage, which the API and the workers share."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from app.core.config import defaults
from app.core.config.base import ROOT, SettingsGroup, weak_secret


class StorageSettings(SettingsGroup):
    """Where files are stored: a local folder, or a bucket of an S3-compatible service."""

    model_config = SettingsConfigDict(env_prefix="STORAGE_")

    url: str = Field(
        "data/storage",
        min_length=1,
        max_length=1000,
        description="A folder, relative to the project, or `s3://bucket/prefix`. All hosts must share it.",
    )
    endpoint: str = Field("", max_length=1000, description="URL of an S3-compatible service; empty means AWS.")
    region: str = Field("us-east-1", max_length=100, description="Region of the bucket.")
    access_key_id: str = Field("", max_length=200, description="Access key id; empty means the role of the machine.")
    secret_access_key: SecretStr = Field(SecretStr(""), description="Secret access key for STORAGE_ACCESS_KEY_ID.")
    max_upload_bytes: int = Field(
        104_857_600,
        ge=1024,
        le=5_368_709_120,
        description="Maximum size of an upload to PUT /files in bytes; a larger file gets 413.",
    )

    max_bytes_per_owner: int = Field(
        defaults.MAX_BYTES_PER_OWNER,
        ge=1024,
        description="Quota in bytes for all files of one user; exceeding it returns 413. "
        "Without accounts, all clients share the quota.",
    )

    @field_validator("url")
    @classmethod
    def _is_a_folder_or_a_bucket(cls, value: str) -> str:
        scheme, separator, rest = value.partition("://")
        if separator and (scheme != "s3" or not rest.partition("/")[0]):
            raise ValueError("must be a folder or a URL such as s3://bucket/prefix")
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with https:// or http://")
        return value

    @model_validator(mode="after")
    def _key_with_secret(self) -> "StorageSettings":
        if self.access_key_id and not self.secret_access_key.get_secret_value():
            raise ValueError("STORAGE_ACCESS_KEY_ID is set without STORAGE_SECRET_ACCESS_KEY; set both")
        return self

    @property
    def is_bucket(self) -> bool:
        """Whether files are in a bucket."""
        return self.url.startswith("s3://")

    @property
    def folder(self) -> Path:
        """The local folder."""
        return ROOT / self.url

    def audit(self) -> list[str]:
        """Return one sentence for each setting that is not safe for production."""
        if self.access_key_id and weak_secret(self.secret_access_key.get_secret_value()):
            return ["STORAGE_SECRET_ACCESS_KEY is a default, weak or placeholder secret; set the bucket's key."]
        return []


storage_settings = StorageSettings()
