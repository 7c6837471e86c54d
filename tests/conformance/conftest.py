"""Two devices, for clause R15, before TensorFlow does anything; and a browser."""

import pytest
import tensorflow as tf

from tests.conformance import browser

for device in tf.config.list_physical_devices("CPU"):
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(device, parts)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if not browser.find():
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is on the PATH")
    with browser.opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
