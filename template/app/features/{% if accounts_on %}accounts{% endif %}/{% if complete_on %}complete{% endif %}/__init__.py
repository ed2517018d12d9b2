"""Complete accounts: verified addresses, password resets, a list of devices and rate limits."""
