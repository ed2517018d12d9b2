"""Upload and download of files, with a quota for each owner."""
