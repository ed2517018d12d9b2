"""Routes of tasks, and the checks and error responses of the queue."""
