"""The task platform: an API over the records of tasks, for their owners and for operators."""
