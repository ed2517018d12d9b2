"""Tables of users and their login sessions."""

from datetime import datetime

from sqlalchemy import ForeignKey, String, false
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, UtcDateTime, utc_now

# MySQL's default collations ignore accents: a code for one address would be mailed to another.
ADDRESS = String(254).with_variant(VARCHAR(254, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


class User(Base):
    """A user account. `email` is stored in lower case, so that an address has one account on every database.

    `is_verified` means that the user has read a mail sent to the address, or that basic accounts required no
    verification. `is_operator` means that the user may see and change the tasks of all users; only the command line sets it.
    """

    __tablename__ = "users"
    __table_args__ = ({"info": {"branch": "forge_accounts"}},)

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(ADDRESS, unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_verified: Mapped[bool] = mapped_column(default=False, server_default=false())
    is_operator: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    last_activity: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Session(Base):
    """A login on one device. Only a hash of its token is stored, so that a stolen database gives no access."""

    __tablename__ = "sessions"
    __table_args__ = ({"info": {"branch": "forge_accounts", "expires": True}},)

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now, index=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=utc_now)
    user_agent: Mapped[str | None] = mapped_column(String(255))
