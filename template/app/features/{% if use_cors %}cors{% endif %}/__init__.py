"""Pages of other origins may call the API (CORS)."""
