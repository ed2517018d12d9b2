"""The welcome mail of basic accounts."""
