"""What accounts add to the API."""

from app.api.errors import threads_busy
from app.core.features import Feature
from app.core.threads import ThreadsBusy

# Passwords are hashed in a limited number of threads.
feature = Feature(exception_handlers={ThreadsBusy: threads_busy})
