"""Layer 1: pure array functions, no parameters, no files."""
