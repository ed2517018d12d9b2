"""Settings of the files that the API and the workers share."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from app.core.config import defaults
from app.core.config.base import ROOT, SettingsGroup, weak_secret


class StorageSettings(SettingsGroup):
    """Where files are kept: a local folder, or a bucket of any S3-compatible service."""

    model_config = SettingsConfigDict(env_prefix="STORAGE_")

    url: str = Field(
        "data/storage",
        min_length=1,
        max_length=1000,
        description="A folder, relative to the project's, or `s3://bucket/prefix`. Every host needs the same one.",
    )
    endpoint: str = Field("", max_length=1000, description="Address of an S3-compatible service; empty is AWS.")
    region: str = Field("us-east-1", max_length=100, description="Region of the bucket.")
    access_key_id: str = Field("", max_length=200, description="Access key; empty takes the machine's own role.")
    secret_access_key: SecretStr = Field(SecretStr(""), description="Secret of that key.")
    max_upload_bytes: int = Field(
        104_857_600,
        ge=1024,
        le=5_368_709_120,
        description="Largest file that PUT /files takes, in bytes; a larger one is answered 413.",
    )

    max_bytes_per_owner: int = Field(
        defaults.MAX_BYTES_PER_OWNER,
        ge=1024,
        description="Bytes that the files of one user may take together; more is answered 413. "
        "Without accounts they are those of all.",
    )

    @field_validator("url")
    @classmethod
    def _is_a_folder_or_a_bucket(cls, value: str) -> str:
        scheme, separator, rest = value.partition("://")
        if separator and (scheme != "s3" or not rest.partition("/")[0]):
            raise ValueError("must be a folder or s3://bucket/prefix")
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
            raise ValueError("STORAGE_ACCESS_KEY_ID needs STORAGE_SECRET_ACCESS_KEY")
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
        """Return what is not fit for production."""
        if self.access_key_id and weak_secret(self.secret_access_key.get_secret_value()):
            return ["STORAGE_SECRET_ACCESS_KEY is a default, weak or unfilled secret: set the bucket's."]
        return []


storage_settings = StorageSettings()
