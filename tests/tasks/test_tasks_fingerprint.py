"""A fingerprint is the same for the same split in another process, and another one for other examples."""

import json
import random
import re
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from autoprune.errors import TaskError
from autoprune.tasks.fingerprint import (
    Fingerprint,
    check_same_splits,
    difference,
    random_state_kept,
    seed_all,
    take_fingerprint,
)
from autoprune.tasks.splits import DatasetSplit, SubsetSplit, TensorSplit, as_split
from autoprune.tasks.task import Data


def table(n: int = 300, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 6, generator=generator)
    return inputs, (inputs[:, 0] > 0).long()


class Noisy(Dataset[tuple[torch.Tensor, int]]):
    """Changes its inputs at every read, by random numbers of some kind."""

    def __init__(self, noise: Callable[[], float], n: int = 40) -> None:
        self.inputs, self.targets = table(n)
        self.noise = noise

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.inputs[index] + self.noise(), int(self.targets[index])


OWN = np.random.default_rng(7)

GLOBAL = {
    "torch": lambda: float(torch.rand(())),
    "numpy": lambda: float(np.random.rand()),
    "random": random.random,
    "a coin": lambda: float(random.random() < 0.5),
}


def in_another_process(fingerprint: Fingerprint) -> Fingerprint:
    return Fingerprint.from_dict(json.loads(json.dumps(fingerprint.to_dict())))


@pytest.mark.parametrize(
    "make",
    [
        lambda: as_split(table(), "train"),
        lambda: as_split(TensorDataset(*table()), "train"),
        lambda: as_split(Subset(TensorDataset(*table()), range(5, 90)), "train"),
        lambda: SubsetSplit(as_split(table(), "train"), torch.arange(0, 300, 3)),
        lambda: as_split(({"a": table()[0], "b": table()[1]}, torch.full((300, 1), torch.nan)), "train"),
        *(lambda noise=noise: DatasetSplit(Noisy(noise)) for noise in GLOBAL.values()),
        lambda: DatasetSplit(Noisy(OWN.random)),
    ],
)
def test_the_same_split_has_the_same_fingerprint(make: Callable[[], TensorSplit]) -> None:
    known = in_another_process(take_fingerprint(make()))
    seed_all(123)
    assert difference(make(), known) is None


@pytest.mark.parametrize("noise", [*GLOBAL.values(), OWN.random], ids=[*GLOBAL, "its own generator"])
def test_a_split_that_augments_itself_is_seen(noise: Callable[[], float]) -> None:
    fingerprint = take_fingerprint(DatasetSplit(Noisy(noise)))
    assert fingerprint.augments
    assert fingerprint.varying == ((0,) if noise == OWN.random else ())
    other = Noisy(noise)
    other.targets = 1 - other.targets
    assert difference(DatasetSplit(other), fingerprint) is not None
    assert not take_fingerprint(DatasetSplit(TensorDataset(*table()))).augments


def test_rounding_is_no_difference() -> None:
    inputs, targets = table()
    for wrap in (lambda *pair: as_split(pair, "train"), lambda *pair: DatasetSplit(TensorDataset(*pair))):
        known = take_fingerprint(wrap(inputs, targets))
        assert difference(wrap(inputs * (1 + 1e-6) + 1e-6, targets), known) is None


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs, targets: (inputs[:-1], targets[:-1]), "299 examples instead of 300"),
        (lambda inputs, targets: (inputs[torch.randperm(300)], targets), "other content in 6[0-4] of 64 parts"),
        (lambda inputs, targets: (inputs, targets.where(torch.arange(300) != 7, 1 - targets)), "in 1 of 64 parts"),
        (lambda inputs, targets: (inputs.index_fill(0, torch.tensor([250]), 1.0), targets), "in 1 of 64 parts"),
        (lambda inputs, targets: (inputs - 0.01, targets), "other content in 64 of 64 parts"),
        (lambda inputs, targets: (inputs.double(), targets), "other content in 64 of 64 parts"),
        (lambda inputs, targets: (inputs.flip(1), targets), "other content in 64 of 64 parts"),
    ],
)
def test_another_split_is_seen(
    change: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]], message: str, in_memory: bool
) -> None:
    def split(inputs: torch.Tensor, targets: torch.Tensor) -> TensorSplit | DatasetSplit:
        return TensorSplit(inputs, targets) if in_memory else DatasetSplit(TensorDataset(inputs, targets))

    told = difference(split(*change(*table())), take_fingerprint(split(*table())))
    assert told is not None

    assert re.search(message, told), told


def test_what_changed_is_refused_by_name() -> None:
    splits = {name: TensorSplit(*table(seed=seed)) for seed, name in enumerate(("train", "validation", "test"))}
    data = Data(**splits)
    known = {name: take_fingerprint(split) for name, split in splits.items()}
    check_same_splits(data, known)
    changed = Data(**{**splits, "test": TensorSplit(*table(seed=9))})
    with pytest.raises(
        TaskError, match=r"task.data: in this worker the test split has other .*random_split\(\.\.\., gen"
    ):
        check_same_splits(changed, known, "in this worker ")


def test_the_random_generators_are_as_before() -> None:
    seed_all(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with random_state_kept():
        take_fingerprint(DatasetSplit(Noisy(GLOBAL["torch"])))
    take_fingerprint(DatasetSplit(Noisy(GLOBAL["numpy"])))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


def test_an_example_that_takes_long_to_read_is_read_seldom() -> None:
    class Slow(Noisy):
        n_read = 0

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            Slow.n_read += 1
            time.sleep(0.02)
            return self.inputs[index], 0

    fingerprint = take_fingerprint(DatasetSplit(Slow(GLOBAL["torch"], n=5000)))
    assert fingerprint.n_read <= 12
    assert Slow.n_read <= 5 + 3 * 12
