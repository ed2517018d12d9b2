"""The user who is logged in."""

from datetime import datetime

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import update

from app.api.deps import SessionDep
from app.api.errors import invalid
from app.core.database import matched_rows
from app.features.accounts.complete.after_commit import try_to_mail
from app.features.accounts.complete.codes import drop_codes
from app.features.accounts.complete.limits import PASSWORD, limit
from app.features.accounts.complete.logins import end_logins
from app.features.accounts.deps import CurrentLogin, CurrentUser
from app.features.accounts.models import User
from app.features.accounts.schemas import NewPassword, Password, is_address
from app.features.accounts.security import hash_password, verify_password
from app.tasks.account_mail_tasks import send_password_changed

router = APIRouter()


class Profile(BaseModel):
    """An account, for its owner."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    is_verified: bool
    created_at: datetime


class ChangePasswordRequest(BaseModel):
    """The password, and another."""

    current_password: Password
    new_password: NewPassword


@router.get("/users/me")
async def me(user: CurrentUser) -> Profile:
    """Return who is logged in."""
    return Profile.model_validate(user)


@router.post(
    "/change-password",
    status_code=204,
    responses={400: {"description": "The password is another"}, 429: {"description": "Too many attempts"}},
)
async def change_password(request: ChangePasswordRequest, login: CurrentLogin, db: SessionDep) -> None:
    """Change the password; all logins but this one end."""
    user = login.user
    if is_address(request.new_password, user.email):
        raise invalid(("body", "new_password"), "The password must not be the address.")
    await limit(PASSWORD, str(user.id))
    if not await verify_password(request.current_password.get_secret_value(), user.password_hash):
        raise HTTPException(400, "The current password is another.")
    password_hash = await hash_password(request.new_password.get_secret_value())
    # Of two changes at the same time the first counts: the second gave a password that is no longer the current one.
    same = (User.id == user.id, User.password_hash == user.password_hash)
    if not await matched_rows(db, update(User).where(*same).values(password_hash=password_hash)):
        raise HTTPException(400, "The current password is another.")
    await end_logins(db, user, but=login.session.id)
    await drop_codes(db, user)
    await db.commit()
    await try_to_mail(send_password_changed.s(user.email))
