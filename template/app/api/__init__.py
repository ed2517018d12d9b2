"""Routes, one module a concern."""
