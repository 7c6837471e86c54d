"""Times a SavedModel in bfloat16 and in float32. This program runs in its own process.

Its argument is a job in JSON: `ours` (folder of the classifier), `size` in pixels,
`batches` and `repeat`. The last line of its output is a JSON object, as that of
`benchmarks.inference_speed`: "ours" is in bfloat16, "theirs" in float32.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from benchmarks import inference_speed
from benchmarks.subprocesses import report_progress
from reuse import precision, precision_names


def main(job: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    model = tf.saved_model.load(job["ours"])
    exact = functools.partial(inference_speed.call, model)
    rounded = precision.Function(exact, precision_names.BFLOAT16)
    times = {}
    for batch in job["batches"]:
        report_progress(f"time batch {batch}")
        images = tf.random.uniform([batch, job["size"], job["size"], 3])
        functions = {
            "ours": functools.partial(rounded, images),
            "theirs": functools.partial(exact, images),
        }
        times[f"batch {batch}, bfloat16 beside float32"] = inference_speed.alternate(
            functions, job["repeat"]
        )
    return times


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
