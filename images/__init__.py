"""Decodes image files and turns them into model inputs, for the whole repository.

Encoded bytes -> upright 8-bit RGB pixels (`decoding`) -> the model's input
(`model_input`), as TensorFlow graph code. Training, evaluation, retraining,
prediction and the `image_bytes` signature of exported models all run these functions,
so the same file gives the same tensor everywhere, bit for bit. Nothing else in the
repository decodes, crops or resizes an image.
"""
