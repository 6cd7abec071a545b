"""How many trials a machine holds, and what each is given."""

import os
from typing import Any

import pytest
import torch

from autoprune.config.resources import Resources
from autoprune.errors import StudyError
from autoprune.search.resources import WorkerResources, find_worker_resources, room


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 cores for this process and 2 GPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("resources", "workers", "threads"),
    [
        ({}, 8, 1),
        ({"workers": 3}, 3, 2),
        ({"cpus_per_trial": 2}, 4, 2),
        ({"cpus_per_trial": 3}, 2, 3),
        ({"cpus_per_trial": 3, "workers": 8}, 8, 3),
        ({"gpus_per_trial": 1}, 2, 4),
        ({"gpus_per_trial": 2}, 1, 8),
        ({"gpus_per_trial": 0.25}, 8, 1),
        ({"gpus_per_trial": 0.5}, 4, 2),
        ({"gpus_per_trial": 0.4}, 4, 2),
        ({"gpus_per_trial": 0.07}, 28, 1),
        ({"gpus_per_trial": 0.25, "cpus_per_trial": 2}, 4, 2),
        ({"gpus_per_trial": 0.25, "workers": 2}, 2, 4),
        ({"gpus_per_trial": 1, "cpus_per_trial": 1}, 2, 1),
    ],
)
def test_trials_are_laid_out_over_cores_and_gpus(resources: dict[str, Any], workers: int, threads: int) -> None:
    places = find_worker_resources(Resources(**resources))
    assert (places.workers, places.threads) == (workers, threads)
    assert places.device.type == ("cuda" if "gpus_per_trial" in resources else "cpu")
    assert places.per_trial == {"CPU": threads, "GPU": resources.get("gpus_per_trial", 0)}


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"gpus_per_trial": 3}, r"resources.gpus_per_trial: needs 3 GPUs, this machine has 2\."),
        ({"cpus_per_trial": 9}, r"resources.cpus_per_trial: needs 9 cores, this machine has 8 for this process\."),
    ],
)
def test_more_than_there_is_is_refused(resources: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        find_worker_resources(Resources(**resources))


def test_custom_resources_are_handed_on() -> None:
    places = find_worker_resources(Resources(workers=1, cpus_per_trial=1, custom={"licence": 0.5}))
    assert places.per_trial == {"CPU": 1, "GPU": 0, "licence": 0.5}
    assert WorkerResources(1, 1, 0.0, torch.device("cpu")).per_trial == {"CPU": 1, "GPU": 0.0}


@pytest.mark.parametrize(
    ("machine", "trial", "expected"),
    [
        ({"CPU": 8.0}, {"CPU": 3, "GPU": 0}, 2),
        ({"CPU": 8.0}, {"CPU": 1, "GPU": 0.25}, 0),
        ({"CPU": 8.0, "GPU": 1.0}, {"CPU": 1, "GPU": 0.25}, 4),
        ({"CPU": 99.0, "GPU": 3.0}, {"CPU": 1, "GPU": 0.4}, 6),
        ({"CPU": 99.0, "GPU": 3.0}, {"CPU": 1, "GPU": 1 / 3}, 9),
        ({"CPU": 99.0, "GPU": 3.0}, {"CPU": 1, "GPU": 2}, 1),
        ({"CPU": 99.0, "GPU": 7.0}, {"CPU": 1, "GPU": 0.07}, 98),
        ({"CPU": 99.0, "licence": 7.0}, {"CPU": 1, "licence": 0.07}, 100),
        ({"CPU": 99.0, "licence": 2.0}, {"CPU": 1, "licence": 1}, 2),
        ({"CPU": 99.0}, {"CPU": 1, "licence": 1}, 0),
    ],
)
def test_room(machine: dict[str, float], trial: dict[str, float], expected: int) -> None:
    assert room(machine, trial) == min(expected, 99 // int(trial["CPU"]))
