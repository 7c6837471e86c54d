"""Helpers shared by all packages: atomic writes, messages, plots, progress, hashes."""
