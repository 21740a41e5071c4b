"""Other people's frameworks; nothing else of the package imports these."""
