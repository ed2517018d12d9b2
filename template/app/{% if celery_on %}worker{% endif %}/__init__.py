"""The runtime of tasks, one concern a module. Task code needs `publish` and `records` only."""
