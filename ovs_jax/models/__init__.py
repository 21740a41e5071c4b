"""Layer 2: Flax modules; the only place that defines parameters."""
