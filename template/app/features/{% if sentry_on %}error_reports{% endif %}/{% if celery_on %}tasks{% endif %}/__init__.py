"""Report the errors of tasks and beat."""
