"""Celery tasks. Add a module, at any depth; it is found by its file name."""
