"""Delete expired rows."""
