"""Names of the precisions in which a model may compute; see `reuse.precision`."""

AUTO = "auto"
FLOAT32 = "float32"
BFLOAT16 = "bfloat16"
ALL = (AUTO, FLOAT32, BFLOAT16)
