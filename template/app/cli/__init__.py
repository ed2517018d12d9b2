"""The command line: `main` builds it from the modules in `commands/`, `console` has what they share."""
