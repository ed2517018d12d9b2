"""Routes of the current user."""

from datetime import datetime

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import update

from app.api.deps import SessionDep
from app.api.errors import invalid
from app.core.database import matched_rows
from app.features.accounts.complete.after_commit import queue_mail
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
    """The account of the current user."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    is_verified: bool
    created_at: datetime


class ChangePasswordRequest(BaseModel):
    """The current and the new password."""

    current_password: Password
    new_password: NewPassword


@router.get("/users/me")
async def me(user: CurrentUser) -> Profile:
    """Return the current user."""
    return Profile.model_validate(user)


@router.post(
    "/change-password",
    status_code=204,
    responses={400: {"description": "The current password is incorrect"}, 429: {"description": "Too many attempts"}},
)
async def change_password(request: ChangePasswordRequest, login: CurrentLogin, db: SessionDep) -> None:
    """Change the password and end all other logins."""
    user = login.user
    if is_address(request.new_password, user.email):
        raise invalid(("body", "new_password"), "The password must not be the e-mail address.")
    await limit(PASSWORD, str(user.id))
    if not await verify_password(request.current_password.get_secret_value(), user.password_hash):
        raise HTTPException(400, "The current password is incorrect.")
    password_hash = await hash_password(request.new_password.get_secret_value())
    # Of two concurrent changes the first wins: for the second, the current password is no longer correct.
    same = (User.id == user.id, User.password_hash == user.password_hash)
    if not await matched_rows(db, update(User).where(*same).values(password_hash=password_hash)):
        raise HTTPException(400, "The current password is incorrect.")
    await end_logins(db, user, except_session=login.session.id)
    await drop_codes(db, user)
    await db.commit()
    await queue_mail(send_password_changed.s(user.email))
