"""The commands of tasks and workers."""
