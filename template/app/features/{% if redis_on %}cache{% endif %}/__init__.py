"""Readiness check, shutdown and audit of the Redis cache (app/core/redis.py)."""
