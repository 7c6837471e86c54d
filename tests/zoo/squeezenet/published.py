"""Published values of SqueezeNet; see `tests.zoo.published`."""

from tests.zoo import published

# fmt: off
RECIPES = {
    # The authors' train_val.prototxt and solver.prototxt; Caffe decays biases too.
    "squeezenet_*":
        (published.IMAGENET, 0.5, 2e-4, (), None, None, None),
}
# fmt: on
PATHS = {
    "squeezenet_1_0": "fc511562822093085d8371eb72223811",
    "squeezenet_1_1": "74d5d9ede11a14635a2ae39bfa431e72",
}
