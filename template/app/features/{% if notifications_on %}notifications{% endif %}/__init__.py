"""Send notifications to one or many users through a webhook."""
