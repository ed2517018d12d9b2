"""Complete accounts: verified addresses, password resets, devices and rate limits."""
