"""Trains a classifier for new images on a published feature-vector model."""
