"""The application."""

from app.core import moved_modules

moved_modules.install()
