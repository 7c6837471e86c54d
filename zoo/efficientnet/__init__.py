"""EfficientNets."""
