"""The commands, one module each; `app.cli.main` finds them by their file names."""
