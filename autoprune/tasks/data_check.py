"""Check the splits: the same each time they are made, apart from one another, clean where they judge."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.config.task import CallableRef
from autoprune.errors import TaskError
from autoprune.tasks.build import load_data
from autoprune.tasks.fingerprint import (
    SEEDLESS,
    SPLITS,
    Fingerprint,
    differences,
    random_state_kept,
    seed_all,
    take_fingerprint,
)
from autoprune.tasks.overlap import shared_examples
from autoprune.tasks.splits import SubsetSplit
from autoprune.tasks.task import Data

MAX_LOAD_TIME_S = 3.0
"""Data that take longer to load are not loaded a second time to see whether they are the same."""

CLEAN = (
    "Make its dataset a second time without the transform, and return torch.utils.data.Subset(clean, indices) as "
    "validation and a Subset of the augmented one, with the other indices, as train."
)


@dataclass(frozen=True)
class DataReport:
    """What was found of a task's data.

    Attributes:
        fingerprints: Split -> its fingerprint.
        warnings: What can be searched with, but judges wrongly.
    """

    fingerprints: Mapping[str, Fingerprint]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        splits = {name: fingerprint.to_dict() for name, fingerprint in self.fingerprints.items()}
        return {"splits": splits, "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataReport":
        """Read what :meth:`to_dict` gave; raises KeyError, TypeError or ValueError if it is something else."""
        splits = {name: Fingerprint.from_dict(values["splits"][name]) for name in SPLITS}
        return cls(splits, tuple(values["warnings"]))


def check_data(data: Data, ref: CallableRef, base_dir: Path, load_time_s: float) -> DataReport:
    """Take the splits' fingerprints, load the data a second time to compare, and look for what judges wrongly.

    Args:
        ref: What loads the data.
        load_time_s: How long that took the first time.

    Raises:
        TaskError: If the splits are others the second time, a split is a part of the training split, or an example
            can't be read.
    """
    fingerprints = {name: take_fingerprint(getattr(data, name)) for name in SPLITS}
    if load_time_s <= MAX_LOAD_TIME_S:
        _check_same_twice(ref, base_dir, fingerprints)
    with random_state_kept():
        augmenting = {name for name in SPLITS if fingerprints[name].augments}
        warnings = [*_augmented(data, augmenting), *shared_examples(data, augmenting)]
    return DataReport(fingerprints, tuple(warnings))


def _check_same_twice(ref: CallableRef, base_dir: Path, fingerprints: Mapping[str, Fingerprint]) -> None:
    with random_state_kept():
        seed_all(0x5EED)  # another state than that of the first time
        try:
            again = load_data(ref, base_dir)
        except TaskError:  # what loads only once in a process is compared in the next one
            return
    differing = list(differences(again, fingerprints))
    if differing:
        names = " and ".join(", ".join(differing).rsplit(", ", 1))
        raise TaskError(
            f"task.data: {ref.callable} gives another {names} split each time it is called, so every process and every "
            f"later command would have its own. {SEEDLESS}"
        )


def _augmented(data: Data, augmenting: set[str]) -> Iterator[str]:
    """Warn of splits that judge on augmented examples."""
    for name in sorted(augmenting - {"train"}, reverse=True):
        split = getattr(data, name)
        held_out = isinstance(getattr(split, "split", None), SubsetSplit)
        found = "its examples differ from one read to the next"
        if name == "validation" and held_out and "train" in augmenting:
            yield (
                f"task.data: no validation split is given, so {len(split)} training examples are held out, and the "
                f"training set augments itself ({found}): the metric is taken on augmented examples. {CLEAN}"
            )
        else:
            yield (
                f"task.data: the {name} split augments itself ({found}): the metric is taken on augmented examples, "
                f"and is another one each time. {CLEAN if name == 'validation' else 'Make it without the transform.'}"
            )
