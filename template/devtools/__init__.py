"""Commands for development; production does not need them."""
