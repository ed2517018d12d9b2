"""Helpers without a concern of their own."""
