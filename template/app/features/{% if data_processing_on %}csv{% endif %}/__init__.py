"""Process CSV files of any size row by row."""
