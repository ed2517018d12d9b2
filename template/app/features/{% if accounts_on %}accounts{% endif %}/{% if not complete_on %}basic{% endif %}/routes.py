"""Routes to register and to log in."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException
from pydantic import BaseModel

from app.api.deps import SessionDep
from app.features.accounts.basic.welcome import welcomes
from app.features.accounts.config import jwt_settings
from app.features.accounts.schemas import LoginRequest, LoginResponse, RegisterRequest
from app.features.accounts.service import EmailTaken, authenticate, begin_login, create_user
from app.features.accounts.sessions import access_token, new_token, open_session

# A free thread is needed to hash the password.
_BUSY: dict[int | str, dict[str, Any]] = {503: {"description": "Too many requests"}}
router = APIRouter(tags=["accounts"], responses=_BUSY)


class RegisterResponse(BaseModel):
    """The new account, and the task that sends the welcome mail, if one was queued."""

    message: str
    user_id: int
    task_id: str | None = None


@router.post("/register", status_code=201, responses={409: {"description": "The address already has an account"}})
async def register(request: RegisterRequest, db: SessionDep) -> RegisterResponse:
    """Create an account and queue the welcome mail."""
    try:
        user = await create_user(db, request.email, request.password)
    except EmailTaken as error:
        raise HTTPException(409, "This address already has an account.") from error
    welcomed = await welcomes[-1].welcome(db, user)
    await db.commit()
    return RegisterResponse(message=welcomed.message, user_id=user.id, task_id=welcomed.task_id)


@router.post("/login", responses={401: {"description": "Incorrect e-mail or password"}})
async def login(
    request: LoginRequest,
    db: SessionDep,
    user_agent: Annotated[str | None, Header()] = None,
) -> LoginResponse:
    """Log in and return an access token. Basic accounts have no refresh token: the session expires with the token."""
    user = await authenticate(db, request.email, request.password)
    if user is None or not await begin_login(db, user, request.password):
        raise HTTPException(401, "Incorrect e-mail or password.")
    # The account may date from a time when accounts were `complete` and still be unverified.
    user.is_verified = True
    lifetime = jwt_settings.access_token_expiration
    session = await open_session(db, user, new_token(), lifetime, user_agent)
    await db.commit()
    return LoginResponse(access_token=access_token(session), expires_in=lifetime)
