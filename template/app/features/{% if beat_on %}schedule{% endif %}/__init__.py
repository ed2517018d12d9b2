"""The schedule: beat's readiness checks."""
