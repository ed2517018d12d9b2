"""Settings of database backups."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup


class BackupSettings(SettingsGroup):
    """How long backups are kept, and which programs create them."""

    model_config = SettingsConfigDict(env_prefix="BACKUP_")

    retention_days: int = Field(
        30, ge=1, le=3650, description="Days until a backup is deleted; the newest backup is always kept."
    )
    programs: str = Field(
        "", max_length=1000, description="Folder of the database's client programs, such as pg_dump; empty means PATH."
    )


backup_settings = BackupSettings()
