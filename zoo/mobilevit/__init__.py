"""MobileViT: MobileNetV2's blocks, and transformers that see the whole image."""
