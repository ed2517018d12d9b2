"""Registration and login of basic accounts."""
