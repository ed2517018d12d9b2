"""Readiness and audit checks of beat and the schedule."""
