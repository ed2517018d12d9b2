"""Notifications: webhooks to one receiver and to many."""
