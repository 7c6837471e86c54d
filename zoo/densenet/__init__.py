"""The DenseNet architectures."""
