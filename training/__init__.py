"""Trains what `zoo` builds: data, recipes, the loop, checkpoints."""
