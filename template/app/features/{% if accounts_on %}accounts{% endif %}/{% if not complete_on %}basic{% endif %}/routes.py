"""Accounts over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException
from pydantic import BaseModel

from app.api.deps import SessionDep
from app.features.accounts.basic.welcome import welcomes
from app.features.accounts.config import jwt_settings
from app.features.accounts.schemas import LoginRequest, LoginResponse, RegisterRequest
from app.features.accounts.service import EmailTaken, authenticate, begin_login, create_user
from app.features.accounts.sessions import access_token, new_token, open_session

# The queue for the mail, or no thread to hash the password in.
_BUSY: dict[int | str, dict[str, Any]] = {503: {"description": "Too many requests at once, or Redis does not answer"}}
router = APIRouter(tags=["accounts"], responses=_BUSY)


class RegisterResponse(BaseModel):
    """The account, and the task that sends the welcome mail where one was queued."""

    message: str
    user_id: int
    task_id: str | None = None


@router.post("/register", status_code=201, responses={409: {"description": "The address has an account"}})
async def register(request: RegisterRequest, db: SessionDep) -> RegisterResponse:
    """Create an account, and welcome its owner once it is committed."""
    # Asked first, so that an outage is a 503 with nothing saved rather than an account without its welcome.
    await welcomes[-1].check()
    try:
        user = await create_user(db, request.email, request.password)
    except EmailTaken as error:
        raise HTTPException(409, "This address has an account already.") from error
    await db.commit()
    welcomed = await welcomes[-1].welcome(user)
    return RegisterResponse(message=welcomed.message, user_id=user.id, task_id=welcomed.task_id)


@router.post("/login", responses={401: {"description": "Address and password do not belong together"}})
async def login(
    request: LoginRequest,
    db: SessionDep,
    user_agent: Annotated[str | None, Header()] = None,
) -> LoginResponse:
    """Open a session and return its access token; it ends with the token, as there is nothing to refresh it with."""
    user = await authenticate(db, request.email, request.password)
    if user is None or not await begin_login(db, user, request.password):
        raise HTTPException(401, "Address and password do not belong together.")
    # One that was made while accounts were `complete`: from now on it is used without a code.
    user.is_verified = True
    lifetime = jwt_settings.access_token_expiration
    session = await open_session(db, user, new_token(), lifetime, user_agent)
    await db.commit()
    return LoginResponse(access_token=access_token(session), expires_in=lifetime)
