"""Exports image models as SavedModels and in other formats."""
