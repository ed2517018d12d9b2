"""An API as most projects write it, with the libraries of a generated one: `uvicorn benchmarks.project.usual_api:app`."""

import argon2
import jwt
import redis.asyncio
from fastapi import FastAPI
from pydantic import BaseModel, EmailStr
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.project import usual_celery


class Base(DeclarativeBase):
    """The base of all tables."""


class User(Base):
    """A table."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


class Login(BaseModel):
    """The body of a request."""

    email: EmailStr
    password: str


app = FastAPI()
hasher = argon2.PasswordHasher()
cache = redis.asyncio.Redis()


@app.post("/login")
async def login(body: Login) -> dict[str, str]:
    """Log in, and queue a task."""
    usual_celery.nothing.delay()
    return {
        "token": jwt.encode(
            {"sub": body.email, "hash": hasher.hash(body.password)}, "secret-of-32-bytes-or-more-......"
        )
    }
