"""Database backups in the storage: `python -m app.features.backup list`."""
