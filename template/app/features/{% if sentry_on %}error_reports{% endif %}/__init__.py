"""Report the errors of requests and tasks to Sentry."""
