"""Names of a model's outputs that are not names of endpoints."""

FEATURES = "features"
LOGITS = "logits"
