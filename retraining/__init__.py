"""Trains a classifier of one's own images on a published feature vector."""
