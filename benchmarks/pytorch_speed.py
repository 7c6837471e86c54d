"""Times a SavedModel beside timm's network. This program runs in a separate process.

Its argument is a job in JSON: `ours` (folder of the classifier), `name` (the network in
timm), `size` in pixels, `batches` and `repeat`. The last line of its output is a JSON
object, as that of `benchmarks.inference_speed`: timm's network runs as it is, and
compiled by `torch.compile`. All sides may use all cores.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import unittest.mock
from collections.abc import Iterator
from typing import Any

from benchmarks import inference_speed
from benchmarks.subprocesses import report_progress

# Arch -> name in timm, for networks of the same architecture.
COUNTERPARTS = {
    "mobilenet_v2": "mobilenetv2_100",
    "resnet_v1_5_50": "resnet50",
    "efficientnet_b0": "efficientnet_b0",
    **{f"convnext_{size}": f"convnext_{size}" for size in ("tiny", "small", "base")},
    **{f"vit_{s}_16": f"vit_{s}_patch16_224" for s in ("tiny", "small", "base")},
    **{f"swin_{s}": f"swin_{s}_patch4_window7_224" for s in ("tiny", "small", "base")},
}


def main(job: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    with torchvision_without_operators():
        import timm
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    takes_one_size = job["name"].startswith(("vit_", "swin_"))
    settings = {"img_size": job["size"]} if takes_one_size else {}
    network = timm.create_model(job["name"], **settings).eval().requires_grad_(False)
    sides = {"PyTorch": network, "torch.compile": torch.compile(network)}
    ours = tf.saved_model.load(job["ours"])
    times = {}
    for batch in job["batches"]:
        images = tf.random.uniform([batch, job["size"], job["size"], 3])
        pixels = torch.from_numpy(images.numpy().transpose(0, 3, 1, 2).copy())
        for name, theirs in sides.items():
            report_progress(f"time batch {batch}, {name}")
            functions = {
                "ours": functools.partial(inference_speed.call, ours, images),
                "theirs": functools.partial(_call, theirs, pixels),
            }
            times[f"batch {batch}, {name}"] = inference_speed.alternate(
                functions, job["repeat"]
            )
    return times


def _call(network: Any, pixels: Any) -> Any:
    import torch

    with torch.inference_mode():
        return network(pixels).numpy()


@contextlib.contextmanager
def torchvision_without_operators() -> Iterator[None]:
    """Within the context, torchvision can be imported without its C++ operators.

    Its build for CUDA does not load them beside a torch without CUDA. No classifier
    needs them, but the import fails where it registers their output shapes with torch.
    The context skips that registration.

    Raises:
      ModuleNotFoundError: torch is not installed.
    """
    import torch

    register = torch.library.register_fake

    def register_others(operator: Any, *args: Any, **kwargs: Any) -> Any:
        if str(operator).startswith("torchvision::"):
            return lambda function: function
        return register(operator, *args, **kwargs)

    with unittest.mock.patch.object(torch.library, "register_fake", register_others):
        yield


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
