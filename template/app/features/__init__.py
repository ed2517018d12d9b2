"""Features, one folder each. docs/features.md shows how to add one."""

# Load all settings before a feature's: this reports the invalid settings of all groups at once.
import app.core.config  # noqa: F401
