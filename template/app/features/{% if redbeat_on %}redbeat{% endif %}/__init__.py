"""The schedule in Redis, so that a second beat can stand by (celery-redbeat)."""
