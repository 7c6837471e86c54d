"""MobileNet architectures, versions 1 to 4."""
