"""Where the workers of a job run, and how many there are."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from foundation import processor

LOCAL = "local"
POLL = 1.0
"""Seconds between reports on the progress of a job."""
_DEVICES = pathlib.Path("/dev")
_CORES = 8  # of a worker on this machine: more make one model hardly faster


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where workers run, and what each gets.

    Attributes:
      address: `LOCAL`, or the address of a Ray cluster.
      cpus: cores of each worker; 0 to choose.
      gpus: GPUs of each worker; None for one where there are any.
      workers: number of workers; 0 to choose.
    """

    address: str
    cpus: int = 0
    gpus: float | None = None
    workers: int = 0

    @property
    def is_local(self) -> bool:
        return self.address == LOCAL

    @property
    def is_this_process(self) -> bool:
        """Whether one worker on this machine is enough, which then needs no Ray."""
        hides_gpus = self.gpus == 0 and _gpus() > 0
        return self.is_local and self.local_workers == 1 and not hides_gpus

    @property
    def local_workers(self) -> int:
        """Number of workers on this machine."""
        gpus = _gpus()
        if gpus and self.gpus != 0:
            return self.workers or max(1, int(gpus // (self.gpus or 1)))
        return self.workers or max(1, processor.cores() // _CORES)


def _gpus() -> int:
    """Returns the number of NVIDIA GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len(
            [name for name in visible.split(",") if name.strip() not in ("", "-1")]
        )
    return len([*_DEVICES.glob("nvidia[0-9]*")])
