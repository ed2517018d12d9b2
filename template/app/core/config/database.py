"""Settings of the database."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from app.core.config import defaults
from app.core.config.base import ROOT, SettingsGroup

# SQLAlchemy takes as long to import as all of Celery. Beat, and workers until their first database task, start without it: only
# the functions that need it import it.
if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_ASYNC_DRIVERS = {
    **dict.fromkeys(("postgres", "postgresql", "postgresql+psycopg2", "postgresql+pg8000"), "postgresql+asyncpg"),
    **dict.fromkeys(("mysql", "mysql+pymysql", "mysql+mysqldb"), "mysql+aiomysql"),
    **dict.fromkeys(("mariadb", "mariadb+pymysql", "mariadb+mysqldb"), "mariadb+aiomysql"),
    **dict.fromkeys(("sqlite", "sqlite+pysqlite"), "sqlite+aiosqlite"),
}
# What a URL of this form says is clear, so it can be checked without SQLAlchemy: special characters are percent-encoded.
_PLAIN = re.compile(
    r"(?P<scheme>[a-z0-9+]+)"
    r"(?P<server>://(?:[\w.~%-]+(?::[\w.~%-]*)?@)?(?:[\w.-]+(?::[0-9]{1,5})?)?/[\w-]+)"
    r"(?P<query>(?:\?[\w.=&%/-]+)?)",
    re.ASCII,
)


def _plain_async_url(text: str) -> str | None:
    """Return a URL of a usual form with an asynchronous driver, or None if only SQLAlchemy can read it."""
    found = _PLAIN.fullmatch(text)
    if found is None or "sslmode" in found["query"]:
        return None
    driver = _ASYNC_DRIVERS.get(found["scheme"], found["scheme"])
    if driver not in _ASYNC_DRIVERS.values() or driver.startswith("sqlite"):
        return None
    return f"{driver}{found['server']}{found['query']}"


def async_url(text: str) -> "URL":
    """Return the database URL with an asynchronous driver.

    A relative path of an SQLite file is resolved from the project's root folder, so that every process opens the same
    file.

    Raises:
        ValueError: `text` is not a database URL.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - see the top
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError("must be a URL such as postgresql://user:password@host/name") from None
    if "@" in f"{url.host}{url.database}" and url.get_backend_name() != "sqlite":
        # The text before this @ is part of the password, although it was parsed as the host.
        raise ValueError(
            "has an @ after the host; percent-encode special characters of a password, such as %40 and %2F"
        )
    url = url.set(drivername=_ASYNC_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername == "postgresql+asyncpg" and "sslmode" in url.query:
        # Hosting services use libpq's option name; asyncpg calls it `ssl`.
        mode = url.query["sslmode"]
        url = url.difference_update_query(["sslmode", "channel_binding"]).update_query_dict({"ssl": mode})
    file = url.database
    if url.get_backend_name() == "sqlite" and file and file != ":memory:" and not file.startswith("file:"):
        url = url.set(database=str(ROOT / Path(file)))
    return url


class DatabaseSettings(SettingsGroup):
    """The database's URL and the connection pool of each process."""

    model_config = SettingsConfigDict(env_prefix="DATABASE_")

    url: SecretStr = Field(
        SecretStr(defaults.DATABASE_URL),
        validate_default=True,
        description="Database URL; the async driver is added. Percent-encode special characters of the password.",
    )
    echo: bool = Field(False, description="Log every SQL statement with its values; not allowed in production.")
    pool_size: int = Field(5, ge=1, le=200, description="Connections that each process keeps open.")
    pool_max_overflow: int = Field(10, ge=0, le=200, description="Connections above DATABASE_POOL_SIZE under load.")
    pool_timeout: float = Field(10, ge=0.1, le=300, description="Seconds to wait for a free connection.")
    pool_pre_ping: bool = Field(
        True, description="Test each connection before use, so that a restarted database causes no errors."
    )

    @field_validator("url")
    @classmethod
    def _asynchronous(cls, value: SecretStr) -> SecretStr:
        plain = _plain_async_url(value.get_secret_value())
        if plain is not None:
            return SecretStr(plain)
        from sqlalchemy.exc import NoSuchModuleError  # noqa: PLC0415 - see the top

        url = async_url(value.get_secret_value())
        try:
            url.get_dialect()
        except NoSuchModuleError:
            raise ValueError("must start with postgresql://, mysql://, sqlite:// or an installed dialect") from None
        return SecretStr(url.render_as_string(hide_password=False))

    @property
    def sqlalchemy_url(self) -> "URL":
        """The URL as an SQLAlchemy object, whose text form hides the password."""
        from sqlalchemy.engine import make_url  # noqa: PLC0415 - see the top

        return make_url(self.url.get_secret_value())

    def audit(self) -> list[str]:
        """Return one sentence for each setting that is not safe for production."""
        problems = super().audit()
        if self.echo:
            problems.append("DATABASE_ECHO is on and writes personal data to the log; turn it off.")
        return problems


database_settings = DatabaseSettings()
