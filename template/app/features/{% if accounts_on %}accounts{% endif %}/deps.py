"""Dependencies that authenticate a request: `async def route(user: CurrentUser)`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.deps import SessionDep
from app.features.accounts.models import Session, User
from app.features.accounts.sessions import find_login
from app.features.accounts.tokens import InvalidToken, read_token

_bearer = HTTPBearer(auto_error=False, description="The access token of POST /login")


@dataclass(frozen=True)
class Login:
    """The user and the login session of a request; both are attached to the route's database session."""

    user: User
    session: Session


async def current_login(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    db: SessionDep,
) -> Login:
    """Return the login of the request's access token; raise 401 if the token is missing, invalid or expired."""
    try:
        claims = read_token(credentials.credentials if credentials else "", "access")
    except InvalidToken as error:
        raise unauthorized() from error
    found = await find_login(db, claims)
    # Return the connection to the pool: a route may run for long and not need the database.
    await db.commit()
    if found is None:
        raise unauthorized()
    return Login(*found)


CurrentLogin = Annotated[Login, Depends(current_login)]
"""The current user and login session."""


async def optional_login(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    db: SessionDep,
) -> Login | None:
    """Return the login of the request's access token, None without a token; raise 401 if the token is invalid."""
    return await current_login(credentials, db) if credentials else None


async def current_user(login: CurrentLogin) -> User:
    """Return the current user; raise 401 without a login."""
    return login.user


CurrentUser = Annotated[User, Depends(current_user)]
"""The current user."""


def unauthorized() -> HTTPException:
    """Return the 401 response for a request without a valid login."""
    detail = "The access token is missing, invalid or expired; log in."
    return HTTPException(401, detail, headers={"WWW-Authenticate": "Bearer"})
