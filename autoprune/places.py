"""How many trials run at once, and on what, on this machine."""

import os
from dataclasses import dataclass

import torch

from autoprune.errors import StudyError
from autoprune.spec.model import Resources


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
    device: torch.device


def find_places(resources: Resources) -> Places:
    """Lay the trials out over this machine's cores and GPUs.

    Raises:
        StudyError: If more GPUs a trial are asked for than the machine has.
    """
    cores = len(os.sched_getaffinity(0))
    n_gpus = torch.cuda.device_count()
    if resources.gpus_per_trial > n_gpus:
        raise StudyError(
            f"resources.gpus_per_trial: needs {resources.gpus_per_trial:g} GPUs, this machine has {n_gpus}. "
            "Set it to 0 to train on the CPU."
        )
    workers = cores
    if resources.gpus_per_trial:
        workers = int(n_gpus / resources.gpus_per_trial)
    if resources.workers != "auto":
        workers = resources.workers
    return Places(
        workers=workers,
        threads=max(1, cores // workers),
        gpus_per_trial=resources.gpus_per_trial,
        device=torch.device("cuda" if resources.gpus_per_trial else "cpu"),
    )
