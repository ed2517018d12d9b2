"""Accounts over HTTP: from registration to a forgotten password. No answer tells whether an address has an account."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field

from app.api.deps import SessionDep
from app.features.accounts.complete import login_routes as logins
from app.features.accounts.complete import user_routes as users
from app.features.accounts.complete.after_commit import try_to_mail
from app.features.accounts.complete.codes import drop_codes, use_code
from app.features.accounts.complete.constant_time import ConstantTimeRoute
from app.features.accounts.complete.limits import CODE, LOGIN, MAIL, forgive_all, limit_address
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
from app.worker.publish import check_queue, enqueue

router = APIRouter(tags=["accounts"])
router.include_router(logins.router)
router.include_router(users.router)

_guarded = APIRouter(
    route_class=ConstantTimeRoute,
    responses={429: {"description": "Too many attempts"}},
)


class Message(BaseModel):
    """What happens next, for a person."""

    message: str


class EmailRequest(BaseModel):
    """An address."""

    email: MailAddress


Code = Annotated[str, Field(min_length=1, max_length=32, description="Case, spaces and hyphens do not matter.")]


class CodeRequest(EmailRequest):
    """An address and the code that was mailed there."""

    code: Code


class ResetRequest(RegisterRequest):
    """An address, the password that it shall have, and the code that was mailed there."""

    code: Code


@_guarded.post("/register", status_code=202)
async def register(request: Request, body: RegisterRequest, db: SessionDep) -> Message:
    """Take a registration; the mail that follows has the code for POST /verify-email."""
    await limit_address(MAIL, request, body.email)
    # Asked first, so that an outage is a 503 with nothing saved.
    await check_queue()
    registration_id = await register_user(db, body.email, body.password)
    await db.commit()
    await enqueue(mail_registration.s(body.email, registration_id))
    return Message(message="A mail is on its way to that address: it says what to do next.")


@_guarded.post("/resend-verification", status_code=202)
async def resend_verification(request: Request, body: EmailRequest) -> Message:
    """Mail another code, if the address waits for one."""
    await limit_address(MAIL, request, body.email)
    await enqueue(mail_verification.s(body.email))
    return Message(message="If the address waits to be verified, a mail is on its way.")


@_guarded.post("/verify-email", responses={400: {"description": "No such code"}})
async def verify_email(request: Request, body: CodeRequest, db: SessionDep) -> Message:
    """Verify the address with the code that was mailed there."""
    await limit_address(CODE, request, body.email)
    # An account of an earlier release, or from a time when no address had to be verified, has its code without a registration.
    user = await use_registration(db, body.email, body.code) or await use_code(db, body.email, "verify", body.code)
    if user is None:
        raise _wrong_code()
    user.is_verified = True
    await db.commit()
    await try_to_mail(send_welcome_email.s(user.email))
    return Message(message="The address is verified: log in.")


@_guarded.post("/forgot-password", status_code=202)
async def forgot_password(request: Request, body: EmailRequest) -> Message:
    """Mail a code for POST /reset-password, if the address has an account."""
    await limit_address(MAIL, request, body.email)
    await enqueue(mail_password_reset.s(body.email))
    return Message(message="If the address has an account, a mail is on its way.")


@_guarded.post("/reset-password", responses={400: {"description": "No such code"}})
async def reset_password(request: Request, body: ResetRequest, db: SessionDep) -> Message:
    """Set a password with the code that was mailed; ends every login, and verifies the address, as its mail was read."""
    await limit_address(CODE, request, body.email)
    # Hashed before the code is looked at: all answers take as long, and no row is held meanwhile.
    password_hash = await hash_password(body.password.get_secret_value())
    user = await use_code(db, body.email, "reset", body.code)
    if user is None:
        raise _wrong_code()
    user.password_hash = password_hash
    user.is_verified = True
    await end_logins(db, user)
    await drop_codes(db, user)
    # Before the commit: without Redis nothing is saved.
    await forgive_all(LOGIN, body.email)
    await db.commit()
    await try_to_mail(send_password_changed.s(user.email))
    return Message(message="The password is set: log in.")


def _wrong_code() -> HTTPException:
    return HTTPException(400, "The code is wrong, was used, or has expired; ask for another one.")


router.include_router(_guarded)
