"""Jobs over any number of images on Ray Data."""

try:
    import pyarrow
except ImportError as missing:
    raise ImportError(f"{missing}: run tools/setup bulk") from None
del pyarrow
