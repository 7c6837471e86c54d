"""Generates docs/, and the documents that are published with a model."""
