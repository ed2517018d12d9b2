"""What requests and responses look like, one module a concern."""
