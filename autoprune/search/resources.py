"""How many trials run at once, and on what, on this machine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoprune.config.resources import LEAST_AMOUNT, Resources
from autoprune.errors import StudyError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class WorkerResources:
    """What the engine may use.

    Attributes:
        workers: Trials at the same time.
        threads: Torch threads of each; unless ``resources`` says how many, workers x threads is at most the number of
            cores.
        gpus_per_trial: GPUs of each, a fraction for several on one.
        device: Where this process trains the dense network and, with the inline engine, the trials.
        custom: Ray resource -> amount of it that each takes.
    """

    workers: int
    threads: int
    gpus_per_trial: float
    device: "torch.device"
    custom: Mapping[str, float] = field(default_factory=dict)

    @property
    def per_trial(self) -> dict[str, float]:
        """What a trial takes, by Ray's names."""
        return {"CPU": self.threads, "GPU": self.gpus_per_trial, **self.custom}


def find_worker_resources(resources: Resources) -> WorkerResources:
    """Lay the trials out over this machine's cores and GPUs.

    Raises:
        StudyError: If more GPUs or cores a trial are asked for than the machine has.
    """
    import torch

    workers, threads = find_workers(resources)
    return WorkerResources(
        workers=workers,
        threads=threads,
        gpus_per_trial=resources.gpus_per_trial,
        device=torch.device("cuda" if resources.gpus_per_trial else "cpu"),
        custom=resources.custom,
    )


def find_workers(resources: Resources) -> tuple[int, int]:
    """How many trials run at the same time, and with how many threads each; loads torch only to count GPUs.

    Raises:
        StudyError: If more GPUs or cores a trial are asked for than the machine has.
    """
    cores = len(os.sched_getaffinity(0))
    n_gpus = 0
    if resources.gpus_per_trial:
        import torch

        n_gpus = torch.cuda.device_count()
    if resources.gpus_per_trial > n_gpus:
        raise StudyError(
            f"resources.gpus_per_trial: needs {resources.gpus_per_trial:g} GPUs, this machine has {n_gpus}. "
            "Set it to 0 to train on the CPU."
        )
    if (resources.cpus_per_trial or 0) > cores:
        raise StudyError(
            f"resources.cpus_per_trial: needs {resources.cpus_per_trial} cores, this machine has {cores} for this "
            "process. Lower it, or leave it out to divide them among the workers."
        )
    asked = {"CPU": resources.cpus_per_trial or 0, "GPU": resources.gpus_per_trial}
    workers = room({"CPU": cores, "GPU": n_gpus}, asked) if any(asked.values()) else cores
    if resources.workers != "auto":
        workers = resources.workers
    return workers, resources.cpus_per_trial or max(1, cores // workers)


def room(machine: Mapping[str, float], trial: Mapping[str, float]) -> int:
    """How many trials one machine holds at once, as Ray places them.

    A share of a GPU is of a single one: at 0.4 a trial, two GPUs hold four trials, although they are five times 0.4.

    Args:
        machine: Resource -> how much of it there is.
        trial: Resource -> how much of it a trial takes, to Ray's precision of ``LEAST_AMOUNT``; one of them above 0.
    """
    rooms = []
    for name, amount in trial.items():
        there, taken = (round(each / LEAST_AMOUNT) for each in (machine.get(name, 0.0), amount))
        if name == "GPU" and 0 < amount < 1:
            rooms.append(int(machine.get(name, 0.0)) * (round(1 / LEAST_AMOUNT) // taken))
        elif taken:
            rooms.append(there // taken)
    return min(rooms)
