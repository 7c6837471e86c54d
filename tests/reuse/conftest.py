"""Sets up two CPU devices before TensorFlow starts, and provides a small pair."""

import pytest
import tensorflow as tf

for device in tf.config.list_physical_devices("CPU"):
    if not tf.config.get_logical_device_configuration(device):
        parts = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(device, parts)


@pytest.fixture(scope="session")
def pair(exported):
    """Returns a pair for images of 16 × 16 pixels; `tf1_hub` has TF1 Hub modules."""
    return exported(
        "resnet_cifar_20",
        "random",
        "--gin_binding=ResNetCifar.image_size=16",
        "--format=saved_model,tf1_hub",
        "--check=none",
    )
