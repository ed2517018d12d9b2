"""CSV files larger than memory: cleaned and summed up row by row."""
