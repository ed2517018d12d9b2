"""Store files in a local folder or a bucket."""
