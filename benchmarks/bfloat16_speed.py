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
from reuse import precision


def main(job: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    loaded = tf.saved_model.load(job["ours"])
    times = {}
    for batch in job["batches"]:
        report_progress(f"time batch {batch}")
        images = tf.random.uniform([batch, job["size"], job["size"], 3])
        functions = {
            "ours": functools.partial(_call_in_bfloat16, loaded, images),
            "theirs": functools.partial(inference_speed.call, loaded, images),
        }
        times[f"batch {batch}, bfloat16 beside float32"] = inference_speed.alternate(
            functions, job["repeat"]
        )
    return times


def _call_in_bfloat16(model: Any, images: Any) -> Any:
    with precision.bfloat16():
        return inference_speed.call(model, images)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
