"""Store the schedule in Redis, so that several beats can run (celery-redbeat)."""
