"""The command line: `main` builds it from the modules in folders called `commands`, `console` has what they share."""
