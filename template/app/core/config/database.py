"""The database's settings."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from app.core.config import defaults
from app.core.config.base import ROOT, SettingsGroup

_ASYNC_DRIVERS = {
    **dict.fromkeys(("postgres", "postgresql", "postgresql+psycopg2", "postgresql+pg8000"), "postgresql+asyncpg"),
    **dict.fromkeys(("mysql", "mysql+pymysql", "mysql+mysqldb"), "mysql+aiomysql"),
    **dict.fromkeys(("mariadb", "mariadb+pymysql", "mariadb+mysqldb"), "mariadb+aiomysql"),
    **dict.fromkeys(("sqlite", "sqlite+pysqlite"), "sqlite+aiosqlite"),
}


def async_url(text: str) -> URL:
    """Return a database URL for an asynchronous driver, whichever of the usual spellings `text` has.

    A relative path to an SQLite file counts from the project's folder, so that every process opens the same file.

    Raises:
        ValueError: `text` is no database URL.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("must be a URL such as postgresql://user:password@host/name") from None
    if "@" in f"{url.host}{url.database}" and url.get_backend_name() != "sqlite":
        # What is misread as the host is half of the password.
        raise ValueError("has an @ after the host: a password's special characters are escaped, such as %40 and %2F")
    url = url.set(drivername=_ASYNC_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername == "postgresql+asyncpg" and "sslmode" in url.query:
        # libpq's name, as hosting services write it; asyncpg calls it ssl.
        mode = url.query["sslmode"]
        url = url.difference_update_query(["sslmode", "channel_binding"]).update_query_dict({"ssl": mode})
    file = url.database
    if url.get_backend_name() == "sqlite" and file and file != ":memory:" and not file.startswith("file:"):
        url = url.set(database=str(ROOT / Path(file)))
    return url


class DatabaseSettings(SettingsGroup):
    """Where the database is, and the pool of connections that each process keeps."""

    model_config = SettingsConfigDict(env_prefix="DATABASE_")

    url: SecretStr = Field(
        SecretStr(defaults.DATABASE_URL),
        validate_default=True,
        description="Database URL; the asynchronous driver is filled in. Percent-encode what is special in a password.",
    )
    echo: bool = Field(False, description="Log every statement with its values; not for production.")
    pool_size: int = Field(5, ge=1, le=200, description="Connections that a process keeps open.")
    pool_max_overflow: int = Field(10, ge=0, le=200, description="Connections beyond these at peaks.")
    pool_timeout: float = Field(10, ge=0.1, le=300, description="Seconds that a request waits for a free connection.")
    pool_pre_ping: bool = Field(True, description="Test a connection before each use: survives a restarted database.")

    @field_validator("url")
    @classmethod
    def _asynchronous(cls, value: SecretStr) -> SecretStr:
        url = async_url(value.get_secret_value())
        try:
            url.get_dialect()
        except NoSuchModuleError:
            raise ValueError("must start with postgresql://, mysql://, sqlite:// or an installed dialect") from None
        return SecretStr(url.render_as_string(hide_password=False))

    @property
    def sqlalchemy_url(self) -> URL:
        """The URL as SQLAlchemy reads it; shown without its password."""
        return make_url(self.url.get_secret_value())

    def audit(self) -> list[str]:
        """Return what is not fit for production."""
        problems = super().audit()
        if self.echo:
            problems.append("DATABASE_ECHO is on: it writes personal data into the log.")
        return problems


database_settings = DatabaseSettings()
