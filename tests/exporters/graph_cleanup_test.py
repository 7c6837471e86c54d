"""Cleaning up the graph of a SavedModel leaves its behaviour unchanged."""

import collections
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from exporters import graph_cleanup

ARCH = "resnet_cifar_20"
IMAGES = np.random.default_rng(0).random((2, 96, 80, 3), np.float32)
CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def read(path):
    saved = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    return saved.meta_graphs[0]


def functions(meta_graph):
    return {body.signature.name: body for body in meta_graph.graph_def.library.function}


def test_no_function_saves_and_none_just_passes_on(exported):
    for kind in ("feature_vector", "classification"):
        meta_graph = read(exported(ARCH) / kind / "1")
        bodies = functions(meta_graph)
        assert not [name for name in bodies if "traced_save" in name]
        nodes = [node for body in bodies.values() for node in body.node_def]
        called = collections.Counter(
            node.attr["f"].func.name for node in nodes if node.op in CALLS
        )
        exports = meta_graph.object_graph_def.concrete_functions
        assert min(called.values()) > 1, called
        referenced = {
            function.name
            for node in [*nodes, *meta_graph.graph_def.node]
            for value in node.attr.values()
            for function in (value.func, *value.list.func)
        }
        assert bodies.keys() == exports.keys() | (referenced - {""})


@pytest.mark.slow_except("serving_default")
@pytest.mark.parametrize("key", ["serving_default", "image_classification"])
def test_programs_of_tensorflow_1_restore_it(exported, key):
    path = str(exported(ARCH) / "classification" / "1")
    expected = tf.saved_model.load(path)(IMAGES).numpy()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        signature = v1.saved_model.load(session, ["serve"], path).signature_def[key]
        images = signature.inputs["images"].name
        actual = session.run(signature.outputs["default"].name, {images: IMAGES})
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_saving_with_a_tensorflow_1_saver_raises(exported, tmp_path):
    path = str(exported(ARCH) / "feature_vector" / "1")
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        saver_def = v1.saved_model.load(session, ["serve"], path).saver_def
        with pytest.raises(ValueError, match="this_model_has_no_op_that_saves"):
            v1.train.Saver(saver_def=saver_def).save(session, str(tmp_path / "x"))


def test_the_fingerprint_matches_the_files(exported, tmp_path):
    path = exported(ARCH) / "feature_vector" / "1"
    copy = shutil.copytree(path, tmp_path / "copy")
    fingerprinting_utils.write_fingerprint(str(copy))
    actual = tf.saved_model.experimental.read_fingerprint(str(path))
    expected = tf.saved_model.experimental.read_fingerprint(str(copy))
    assert actual.saved_model_checksum == expected.saved_model_checksum
    assert actual.graph_def_program_hash == expected.graph_def_program_hash


class Counts(tf.Module):
    """A module whose signature is a chain of calls, some of which assign a variable."""

    def __init__(self):
        super().__init__()
        self.calls = tf.Variable(0.0)
        self.scale = tf.Variable(3.0)

    @tf.function
    def deepest(self, x, y):
        before = self.calls.read_value()
        self.calls.assign_add(1.0)
        return y * self.scale, x - y + 0.0 * before, before

    @tf.function
    def deeper(self, x):
        first, second, before = self.deepest(x, x + 1.0)
        second_and_scale = first + self.scale
        return {"first": second, "second": second_and_scale, "same": x, "seen": before}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def signature(self, x):
        self.calls.assign_add(0.5)
        outputs = self.deeper(x)
        return {**outputs, "third": outputs["second"] * 2.0, "calls": self.calls * 1.0}


def test_functions_within_functions_become_one(tmp_path):
    toy = Counts()
    root = tf.Module()
    root.calls, root.scale = toy.calls, toy.scale
    tf.saved_model.save(root, str(tmp_path), toy.signature.get_concrete_function())
    before = functions(read(tmp_path))
    graph_cleanup.clean_up(tmp_path)
    after = functions(read(tmp_path))
    assert len(after) < len(before)
    calls = [n for body in after.values() for n in body.node_def if n.op in CALLS]
    assert not calls
    # Inlined ops wait for all assignments before their call.
    call = "StatefulPartitionedCall"
    (body,) = (body for name, body in after.items() if "signature_wrapper" in name)
    inlined = [n for n in body.node_def if n.name.startswith(f"{call}/{call}/")]
    assert inlined
    assert all(f"^{call}/AssignAddVariableOp" in node.input for node in inlined)
    loaded = tf.saved_model.load(str(tmp_path))
    x = tf.constant([1.0, 5.0])
    for number in (1, 2):
        outputs = loaded.signatures["serving_default"](x)
        expected = {
            "first": [-1.0, -1.0],
            "second": [9.0, 21.0],
            "same": [1.0, 5.0],
            "third": [18.0, 42.0],
            "seen": 1.5 * number - 1,  # before the inlined function assigns it
            "calls": 1.5 * number,  # and after the assignment
        }
        assert {k: v.numpy().tolist() for k, v in outputs.items()} == expected
        assert loaded.calls.numpy() == 1.5 * number
