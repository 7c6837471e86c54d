"""EfficientNet architectures: EfficientNet, EfficientNet-Lite and EfficientNetV2."""
