"""The operators' page, /tasks/ui: rendered by the server with the functions of the JSON routes, for browsers with and without scripts."""
