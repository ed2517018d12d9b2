"""The cache in Redis (app/core/redis.py) as a part of the API: readiness, shutdown and audit."""
