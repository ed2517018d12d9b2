"""Codes that were mailed, and registrations whose address is not verified yet."""

from datetime import datetime

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.features.accounts.models import ADDRESS
from app.models.base import Base, UtcDateTime


class AccountCode(Base):
    """The code that a user was mailed last for a purpose, hashed, and how often somebody has tried to guess it."""

    __tablename__ = "account_codes"
    __table_args__ = (
        UniqueConstraint("user_id", "purpose"),
        {"info": {"branch": "forge_codes", "expires": True}},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    purpose: Mapped[str] = mapped_column(String(10))
    code_hash: Mapped[str] = mapped_column(String(64))
    tries: Mapped[int] = mapped_column(default=0)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class AccountRegistration(Base):
    """A registration, its password and the code that was mailed for it, both hashed; its account is added when the code is used.

    An address may have several: each code sets the password that was given with it, whoever else registers the address.
    """

    __tablename__ = "account_registrations"
    __table_args__ = ({"info": {"branch": "forge_codes", "expires": True}},)

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(ADDRESS, index=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    code_hash: Mapped[str | None] = mapped_column(String(64))
    tries: Mapped[int] = mapped_column(default=0)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
