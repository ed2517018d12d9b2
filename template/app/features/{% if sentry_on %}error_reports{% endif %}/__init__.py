"""Error reports for Sentry, of requests and of tasks."""
