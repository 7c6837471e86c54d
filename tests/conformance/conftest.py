"""Two devices, for clause R15, before TensorFlow does anything."""

import tensorflow as tf

for device in tf.config.list_physical_devices("CPU"):
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(device, parts)
