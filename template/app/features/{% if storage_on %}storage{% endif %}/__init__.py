"""Storage for files: a folder or a bucket."""
