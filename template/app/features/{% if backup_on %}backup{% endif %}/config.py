"""Settings of the database's backups."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.core.config.base import SettingsGroup


class BackupSettings(SettingsGroup):
    """How long backups are kept, and what makes them."""

    model_config = SettingsConfigDict(env_prefix="BACKUP_")

    retention_days: int = Field(
        30, ge=1, le=3650, description="Days that a backup is kept; the newest is, however old it is."
    )
    programs: str = Field(
        "", max_length=1000, description="Folder of the database's own programs, such as pg_dump; empty is PATH."
    )


backup_settings = BackupSettings()
