"""Upload and download files, with a quota per owner."""
