"""Error reports of tasks."""
