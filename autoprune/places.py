"""How many trials run at once, and on what, on this machine."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoprune.errors import StudyError
from autoprune.spec.model import Resources

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Places:
    """What the engine may use.

    Attributes:
        workers: Trials at the same time.
        threads: Torch threads of each, so that workers x threads is at most the number of cores.
        gpus_per_trial: GPUs of each, a fraction for several on one.
        device: Where this process trains the dense network and, with the inline engine, the trials.
    """

    workers: int
    threads: int
    gpus_per_trial: float
    device: "torch.device"


def find_places(resources: Resources) -> Places:
    """Lay the trials out over this machine's cores and GPUs.

    Raises:
        StudyError: If more GPUs a trial are asked for than the machine has.
    """
    import torch

    workers, threads = find_workers(resources)
    device = torch.device("cuda" if resources.gpus_per_trial else "cpu")
    return Places(workers, threads, resources.gpus_per_trial, device)


def find_workers(resources: Resources) -> tuple[int, int]:
    """How many trials run at the same time, and with how many threads each; loads torch only to count GPUs.

    Raises:
        StudyError: If more GPUs a trial are asked for than the machine has.
    """
    cores = len(os.sched_getaffinity(0))
    workers = cores
    if resources.gpus_per_trial:
        import torch

        n_gpus = torch.cuda.device_count()
        if resources.gpus_per_trial > n_gpus:
            raise StudyError(
                f"resources.gpus_per_trial: needs {resources.gpus_per_trial:g} GPUs, this machine has {n_gpus}. "
                "Set it to 0 to train on the CPU."
            )
        workers = int(n_gpus / resources.gpus_per_trial)
    if resources.workers != "auto":
        workers = resources.workers
    return workers, max(1, cores // workers)
