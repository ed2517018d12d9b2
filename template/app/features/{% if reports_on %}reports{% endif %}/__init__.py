"""Create monthly reports as PDF files."""
