"""What everything else stands on: configuration, database, logs."""
