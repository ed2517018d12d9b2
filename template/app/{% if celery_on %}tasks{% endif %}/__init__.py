"""Tasks. Drop in a module, at any depth: it is found."""
