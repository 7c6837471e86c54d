"""Compares the speed and size of exports and of training with common alternatives."""
