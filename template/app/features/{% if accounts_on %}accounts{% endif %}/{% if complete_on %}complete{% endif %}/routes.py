"""Routes from registration to password reset. No response reveals whether an address has an account."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field

from app.api.deps import SessionDep
from app.features.accounts.complete import login_routes as logins
from app.features.accounts.complete import user_routes as users
from app.features.accounts.complete.after_commit import queue_mail
from app.features.accounts.complete.codes import drop_codes, use_code
from app.features.accounts.complete.constant_time import ConstantTimeRoute
from app.features.accounts.complete.limits import CODE, LOGIN, MAIL, limit_address, reset_all_attempts
from app.features.accounts.complete.logins import end_logins
from app.features.accounts.complete.registration import register as register_user
from app.features.accounts.complete.registration import use_registration
from app.features.accounts.schemas import MailAddress, RegisterRequest
from app.features.accounts.security import hash_password
from app.tasks.account_mail_tasks import (
    mail_password_reset,
    mail_registration,
    mail_verification,
    send_password_changed,
)
from app.tasks.welcome_email_task import send_welcome_email
from app.worker.publish import enqueue

router = APIRouter(tags=["accounts"])
router.include_router(logins.router)
router.include_router(users.router)

_guarded = APIRouter(
    route_class=ConstantTimeRoute,
    responses={429: {"description": "Too many attempts"}},
)


class Message(BaseModel):
    """A message for the user: what happens next."""

    message: str


class EmailRequest(BaseModel):
    """An e-mail address."""

    email: MailAddress


Code = Annotated[str, Field(min_length=1, max_length=32, description="Case, spaces and hyphens are ignored.")]


class CodeRequest(EmailRequest):
    """An e-mail address and the code that was mailed to it."""

    code: Code


class ResetRequest(RegisterRequest):
    """An e-mail address, the new password and the code that was mailed to the address."""

    code: Code


@_guarded.post("/register", status_code=202)
async def register(request: Request, body: RegisterRequest, db: SessionDep) -> Message:
    """Start a registration and mail the code for POST /verify-email."""
    await limit_address(MAIL, request, body.email)
    registration_id = await register_user(db, body.email, body.password)
    # Committed with the registration: neither is there without the other.
    await enqueue(mail_registration.s(body.email, registration_id), after_commit=db, outbox=True)
    await db.commit()
    return Message(message="We sent a mail to this address; follow its instructions.")


@_guarded.post("/resend-verification", status_code=202)
async def resend_verification(request: Request, body: EmailRequest) -> Message:
    """Mail a new code if the address has a pending verification."""
    await limit_address(MAIL, request, body.email)
    await enqueue(mail_verification.s(body.email))
    return Message(message="If this address has a pending verification, we sent a mail to it.")


@_guarded.post("/verify-email", responses={400: {"description": "The code is incorrect, already used or expired"}})
async def verify_email(request: Request, body: CodeRequest, db: SessionDep) -> Message:
    """Verify the address with the code that was mailed to it."""
    await limit_address(CODE, request, body.email)
    # An account from an earlier release, or from the time of basic accounts, has a code without a registration.
    user = await use_registration(db, body.email, body.code) or await use_code(db, body.email, "verify", body.code)
    if user is None:
        raise _wrong_code()
    user.is_verified = True
    await db.commit()
    await queue_mail(send_welcome_email.s(user.email))
    return Message(message="The address is verified; you can log in.")


@_guarded.post("/forgot-password", status_code=202)
async def forgot_password(request: Request, body: EmailRequest) -> Message:
    """Mail a code for POST /reset-password if the address has an account."""
    await limit_address(MAIL, request, body.email)
    await enqueue(mail_password_reset.s(body.email))
    return Message(message="If this address has an account, we sent a mail to it.")


@_guarded.post("/reset-password", responses={400: {"description": "The code is incorrect, already used or expired"}})
async def reset_password(request: Request, body: ResetRequest, db: SessionDep) -> Message:
    """Set a new password with the mailed code. Verifies the address and ends all logins."""
    await limit_address(CODE, request, body.email)
    # Hash before checking the code: all responses then take the same time, and no row is locked meanwhile.
    password_hash = await hash_password(body.password.get_secret_value())
    user = await use_code(db, body.email, "reset", body.code)
    if user is None:
        raise _wrong_code()
    user.password_hash = password_hash
    user.is_verified = True
    await end_logins(db, user)
    await drop_codes(db, user)
    # Before the commit: if Redis is unreachable, nothing is saved.
    await reset_all_attempts(LOGIN, body.email)
    await db.commit()
    await queue_mail(send_password_changed.s(user.email))
    return Message(message="The password is set; you can log in.")


def _wrong_code() -> HTTPException:
    return HTTPException(400, "The code is incorrect, already used or expired; request a new one.")


router.include_router(_guarded)
