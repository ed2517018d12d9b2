"""Dependencies for routes. `CurrentUser` is in app/features/accounts/deps.py, `Owner` in app/api/owner.py."""

from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import get_db

SessionDep = Annotated[AsyncSession, Depends(get_db)]
"""A database session. Changes that the route does not commit are rolled back."""
