"""MnasNet architectures: A1, B1 and small."""
