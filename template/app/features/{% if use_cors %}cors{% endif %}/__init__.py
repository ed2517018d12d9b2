"""Cross-origin requests from browsers (CORS)."""
