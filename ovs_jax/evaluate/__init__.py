"""Layer 3: data set in, scores out."""
