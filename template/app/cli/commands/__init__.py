"""Commands of every project. A feature has its own in a folder of this name."""
