"""Database backups in the file storage: `python -m app.features.backup list`."""
