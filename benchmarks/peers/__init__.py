"""What runs in the environments of the peers: each one's task, published and run by its own API."""
