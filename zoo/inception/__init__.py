"""Inception networks: V1, V3, V4, Inception-ResNet V2 and Xception."""
