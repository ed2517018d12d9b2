"""Who a request comes from: `async def route(user: CurrentUser)`."""

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
    """A user and the session that the request belongs to; both belong to the route's database session."""

    user: User
    session: Session


async def current_login(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    db: SessionDep,
) -> Login:
    """Return the login whose access token the request carries; answers 401 where it carries none that is good."""
    try:
        claims = read_token(credentials.credentials if credentials else "", "access")
    except InvalidToken as error:
        raise unauthorized() from error
    found = await find_login(db, claims)
    # Gives the connection back: a route may take long, and need no database.
    await db.commit()
    if found is None:
        raise unauthorized()
    return Login(*found)


CurrentLogin = Annotated[Login, Depends(current_login)]
"""The user who is logged in, with the session."""


async def optional_login(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    db: SessionDep,
) -> Login | None:
    """Return the login whose access token the request carries, or None where it carries none; answers 401 to a bad one."""
    return await current_login(credentials, db) if credentials else None


async def current_user(login: CurrentLogin) -> User:
    """Return the user who is logged in; answers 401 where nobody is."""
    return login.user


CurrentUser = Annotated[User, Depends(current_user)]
"""The user who is logged in."""


def unauthorized() -> HTTPException:
    """Return the answer to a request that takes a login and carries none."""
    detail = "Log in first: the access token is missing, not good, or its login has ended."
    return HTTPException(401, detail, headers={"WWW-Authenticate": "Bearer"})
