"""A worker as most projects write it, with the libraries of a generated one: `celery -A benchmarks.project.usual_celery:app`."""

import aiosmtplib
import jinja2
import structlog
from celery import Celery
from pydantic_settings import BaseSettings
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine


class Settings(BaseSettings):
    """Where the servers are."""

    celery_broker_url: str
    celery_result_backend: str
    database_url: str


settings = Settings()
engine = create_async_engine(settings.database_url.replace("postgresql://", "postgresql+asyncpg://"))
sessions = async_sessionmaker(engine)
app = Celery("usual", broker=settings.celery_broker_url, backend=settings.celery_result_backend)
log = structlog.get_logger()
templates = jinja2.Environment(autoescape=True)
mails = aiosmtplib.SMTP(hostname="127.0.0.1")


@app.task
def nothing() -> None:
    """Do nothing."""
