"""The base of the application: configuration, database, logging and features."""
