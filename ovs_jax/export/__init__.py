"""Models that run without this package, their vocabulary still open."""
