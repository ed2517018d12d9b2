"""Features: a folder each. docs/features.md shows how to add one."""

# Before a feature's own settings: invalid ones of all groups are reported at once.
import app.core.config  # noqa: F401
