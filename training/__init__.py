"""Trains the models of `zoo`: data, recipes, training loop and checkpoints."""
