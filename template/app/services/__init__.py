"""What the application does, apart from HTTP and tasks; one module a concern."""
