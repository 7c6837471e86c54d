"""Loads weights into models: public weights by name, or files in several formats."""
