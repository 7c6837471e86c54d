"""For those who load published models."""
