"""The three networks and data sets, and the dense network of each, made once a seed for all methods."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from autoprune.search.prepare import prepare_study
from autoprune.search.resources import WorkerResources
from autoprune.search.validate import read_space, validate_space
from autoprune.study.folder import StudyFolder

SPACES = Path(__file__).parent / "spaces"

PLACES = WorkerResources(workers=1, threads=1, gpus_per_trial=0.0, device=torch.device("cpu"))


@dataclass(frozen=True)
class Setting:
    """A network, its data and how much may be spent on it.

    Attributes:
        budget: Training epochs that a method may spend.
        longest: Most epochs of one trial, for methods that choose them.
        reference: Accuracy of the hypervolume's reference point; its cost is the dense network's.
    """

    name: str
    budget: int
    longest: int
    reference: float

    def space(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The content of its space file, with some changes laid over it."""
        content: dict[str, Any] = yaml.safe_load((SPACES / f"{self.name}.yaml").read_text())
        return merged(content, changes)


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("digits", budget=240, longest=24, reference=0.5),
        Setting("fashion", budget=120, longest=12, reference=0.5),
        Setting("cifar10_resnet20", budget=60, longest=6, reference=0.1),
    )
}


def merged(base: Any, changes: Any) -> Any:
    """``changes`` laid over ``base``, mapping by mapping."""
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    return {**base, **{key: merged(base.get(key), value) for key, value in changes.items()}}


def prepared(setting: Setting, seed: int, work: Path) -> StudyFolder:
    """A study whose dense and plan stages are done; made the first time it is asked for.

    Raises:
        TaskError: If the data can't be had.
    """
    root = work / f"{setting.name}-{seed}"
    root.mkdir(parents=True, exist_ok=True)
    folder = StudyFolder(root / "dense_study")
    with locked(root):
        space_file = root / "space.yaml"
        space_file.write_text(yaml.safe_dump(setting.space({"search": {"seed": seed}}), sort_keys=False))
        prepare_study(validate_space(read_space(space_file), folder.plan), folder, PLACES)
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes of this benchmark out of a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
