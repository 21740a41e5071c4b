"""Layer 0: knows nothing about segmentation."""
