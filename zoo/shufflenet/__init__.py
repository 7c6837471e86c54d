"""The ShuffleNet V2 architectures."""
