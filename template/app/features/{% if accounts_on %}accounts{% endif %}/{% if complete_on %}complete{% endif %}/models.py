"""Tables of mailed codes, and of registrations whose address is not verified yet."""

from datetime import datetime

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.features.accounts.models import ADDRESS
from app.models.base import Base, UtcDateTime


class AccountCode(Base):
    """The hash of the last code that was mailed to a user for a purpose, and the number of attempts at it."""

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
    """A registration with the hashes of its password and of its mailed code. Using the code creates the account.

    An address may have several: each code sets the password of its own registration, even if others register the
    address.
    """

    __tablename__ = "account_registrations"
    __table_args__ = ({"info": {"branch": "forge_codes", "expires": True}},)

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(ADDRESS, index=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    code_hash: Mapped[str | None] = mapped_column(String(64))
    tries: Mapped[int] = mapped_column(default=0)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
