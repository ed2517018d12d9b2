"""Dependencies, error responses and routes that belong to no feature."""
