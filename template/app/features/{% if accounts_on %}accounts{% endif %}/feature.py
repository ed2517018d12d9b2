"""Declare the feature: a response for requests that find no free thread to hash a password."""

from app.api.errors import threads_busy
from app.core.features import Feature
from app.core.threads import ThreadsBusy

# Passwords are hashed in a limited number of threads.
feature = Feature(exception_handlers={ThreadsBusy: threads_busy})
