"""From what was exported and checked to documents and releases, without TensorFlow."""
