"""Routes to log in, refresh tokens, log out and manage devices."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.deps import SessionDep
from app.features.accounts.complete.known_device import remember_device
from app.features.accounts.complete.limits import LOGIN, limit_address, limit_client, reset_attempts
from app.features.accounts.complete.logins import Tokens, end_login, end_logins, list_logins, open_login, refresh_login
from app.features.accounts.complete.registration import is_registered
from app.features.accounts.config import jwt_settings
from app.features.accounts.deps import CurrentLogin
from app.features.accounts.schemas import LoginRequest, LoginResponse
from app.features.accounts.service import authenticate, begin_login
from app.features.accounts.tokens import InvalidToken

router = APIRouter()

_TOO_MANY: dict[int | str, dict[str, Any]] = {429: {"description": "Too many attempts"}}


class TokenResponse(LoginResponse):
    """The tokens of a login. The refresh token is single-use; store it where page scripts cannot read it."""

    refresh_token: str


class RefreshRequest(BaseModel):
    """A refresh token."""

    refresh_token: str = Field(min_length=1, max_length=2000)


class Device(BaseModel):
    """An active login."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    user_agent: str | None
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime
    current: bool = False


@router.post(
    "/login",
    responses={
        401: {"description": "Incorrect e-mail or password"},
        403: {"description": "The password is correct, but the address is not verified"},
        **_TOO_MANY,
    },
)
async def login(
    request: Request,
    response: Response,
    body: LoginRequest,
    db: SessionDep,
    user_agent: Annotated[str | None, Header()] = None,
) -> TokenResponse:
    """Log in and return an access token and a refresh token."""
    await limit_address(LOGIN, request, body.email)
    user = await authenticate(db, body.email, body.password)
    # The same response if a registered address already has an account, so that it does not reveal the account.
    if user is None and await is_registered(db, body.email, body.password):
        raise _not_verified()
    if user is None:
        raise _incorrect_login()
    if not user.is_verified:
        raise _not_verified()
    await reset_attempts(LOGIN, request, body.email)
    if not await begin_login(db, user, body.password):
        raise _incorrect_login()
    tokens = await open_login(db, user, user_agent)
    await db.commit()
    remember_device(request, response, body.email)
    return _token_response(response, tokens)


@router.post(
    "/refresh",
    dependencies=[Depends(limit_client)],
    responses={401: {"description": "The refresh token is invalid or expired"}, **_TOO_MANY},
)
async def refresh(response: Response, body: RefreshRequest, db: SessionDep) -> TokenResponse:
    """Return new tokens for a refresh token. A reused token ends its login, so do not refresh concurrently."""
    try:
        tokens = await refresh_login(db, body.refresh_token)
    except InvalidToken as error:
        raise HTTPException(401, "The refresh token is invalid or expired; log in again.") from error
    return _token_response(response, tokens)


@router.post("/logout", status_code=204)
async def logout(login: CurrentLogin, db: SessionDep) -> None:
    """End this login."""
    await end_login(db, login.user, login.session.id)
    await db.commit()


@router.post("/logout-all", status_code=204)
async def logout_all(login: CurrentLogin, db: SessionDep) -> None:
    """End all logins of the user."""
    await end_logins(db, login.user)
    await db.commit()


@router.get("/devices")
async def devices(login: CurrentLogin, db: SessionDep) -> list[Device]:
    """List the user's logins, the most recently used first."""
    found = [Device.model_validate(session) for session in await list_logins(db, login.user)]
    return [device.model_copy(update={"current": device.id == login.session.id}) for device in found]


@router.delete("/devices/{device_id}", status_code=204, responses={404: {"description": "No such login"}})
async def end_device(device_id: int, login: CurrentLogin, db: SessionDep) -> None:
    """End one of the user's logins."""
    if not 0 < device_id < 2**31 or not await end_login(db, login.user, device_id):
        raise HTTPException(404, "You have no login with this id.")
    await db.commit()


def _incorrect_login() -> HTTPException:
    return HTTPException(401, "Incorrect e-mail or password.")


def _not_verified() -> HTTPException:
    return HTTPException(
        403,
        "The address is not verified: send the mailed code to POST /verify-email. "
        "POST /resend-verification mails a new code; POST /forgot-password mails one that sets a new password.",
    )


def _token_response(response: Response, tokens: Tokens) -> TokenResponse:
    # https://www.rfc-editor.org/rfc/rfc6749#section-5.1
    response.headers["Cache-Control"] = "no-store"
    lifetime = jwt_settings.access_token_expiration
    return TokenResponse(access_token=tokens.access, refresh_token=tokens.refresh, expires_in=lifetime)
