"""Sets up two CPU devices before TensorFlow starts."""

import tensorflow as tf

for device in tf.config.list_physical_devices("CPU"):
    if not tf.config.get_logical_device_configuration(device):
        parts = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(device, parts)
