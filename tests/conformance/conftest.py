"""Sets up two logical devices for clause R15, before TensorFlow is initialised."""

import pytest
import tensorflow as tf

from conformance import runs
from tests.conformance import in_process

for device in tf.config.list_physical_devices("CPU"):
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(device, parts)


@pytest.fixture
def in_this_process(monkeypatch):
    """Makes the suite judge models in the test process instead of a new one."""
    monkeypatch.setattr(runs.Run, "_worker", in_process.messages)
