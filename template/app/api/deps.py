"""Dependencies of routes. `CurrentUser` is in app/features/accounts/deps.py, whose files and tasks they are in owner.py."""

from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import get_db

SessionDep = Annotated[AsyncSession, Depends(get_db)]
"""A session of the database; what the route does not commit is rolled back."""
