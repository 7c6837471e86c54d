"""From an image model to what other programs load."""
