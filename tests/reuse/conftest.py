"""Two devices, for MirroredStrategy, before TensorFlow does anything; a small pair."""

import pytest
import tensorflow as tf

for device in tf.config.list_physical_devices("CPU"):
    if not tf.config.get_logical_device_configuration(device):
        parts = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(device, parts)


@pytest.fixture(scope="session")
def pair(exported):
    """The folder of a pair for images of 16 pixels, and in `tf1_hub` its modules."""
    return exported(
        "resnet_cifar_20",
        "random",
        "--gin_binding=ResNetCifar.image_size=16",
        "--format=saved_model,tf1_hub",
        "--check=none",
    )
