"""Tasks over HTTP: their state, and the checks and errors of the queue."""
