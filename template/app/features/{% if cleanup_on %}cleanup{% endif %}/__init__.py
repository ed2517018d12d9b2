"""Deletion of expired rows."""
