"""The routes of the schedule, for operators."""
