"""Monthly reports as PDF files."""
