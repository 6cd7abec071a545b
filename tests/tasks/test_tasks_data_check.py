"""Splits drawn without a seed are refused before anything is trained; those that augment where they judge are named."""

import json
from pathlib import Path

import pytest
import torch

from autoprune.config.task import CallableRef
from autoprune.errors import TaskError
from autoprune.tasks.build import load_data
from autoprune.tasks.data_check import DataReport, check_data
from autoprune.tasks.fingerprint import random_state_kept

SOURCE = """
import itertools
import random

import numpy as np
import torch
from torch.utils.data import Dataset, Subset, TensorDataset, random_split

torch.manual_seed(0)

INPUTS = torch.randn(120, 4, generator=torch.Generator().manual_seed(1))
TARGETS = (INPUTS[:, 0] > 0).long()
WHOLE = TensorDataset(INPUTS, TARGETS)
NAMES = ("train", "validation", "test")
CALLS = itertools.count()


def _parts(order):
    return {name: Subset(WHOLE, order[a:b]) for name, a, b in zip(NAMES, (0, 60, 90), (60, 90, 120))}


def by_torch():
    return dict(zip(NAMES, random_split(WHOLE, [60, 30, 30])))


def by_torch_with_a_seed():
    return dict(zip(NAMES, random_split(WHOLE, [60, 30, 30], generator=torch.Generator().manual_seed(3))))


def by_torch_seeded_inside():
    torch.manual_seed(4)
    return by_torch()


def by_numpy():
    return _parts(np.random.permutation(120).tolist())


def by_numpy_generator():
    return _parts(np.random.default_rng().permutation(120).tolist())


def by_python():
    return _parts(random.sample(range(120), 120))


def train_is_shuffled():
    order = torch.randperm(60)
    return {**_parts(range(120)), "train": (INPUTS[:60][order], TARGETS[:60][order])}


def sample_of_the_test_split():
    return {**_parts(range(120)), "test": Subset(WHOLE, sorted(random.sample(range(90, 120), 20)))}


def only_once():
    if next(CALLS):
        raise RuntimeError("the database is open already")
    return by_torch_with_a_seed()


class Flipped(Dataset):
    def __init__(self, indices, flips=True):
        self.indices, self.flips = indices, flips

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        inputs = INPUTS[self.indices[index]]
        return (-inputs if self.flips and random.random() < 0.5 else inputs), 0


def held_out_of_augmented():
    return {"train": Flipped(range(80)), "test": Flipped(range(80, 120), flips=False)}


def subsets_of_augmented():
    whole = Flipped(range(120))
    return {name: Subset(whole, part.indices) for name, part in _parts(range(120)).items()}


def train_alone_augments():
    whole, clean = Flipped(range(120)), Flipped(range(120), flips=False)
    parts = _parts(range(120)).items()
    return {name: Subset(whole if name == "train" else clean, part.indices) for name, part in parts}
"""


def check(folder: Path, name: str, load_time_s: float = 0.0) -> DataReport:
    (folder / "splits_example.py").write_text(SOURCE)
    ref = CallableRef(callable=f"splits_example:{name}")
    return check_data(load_data(ref, folder), ref, folder, load_time_s)


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("by_torch", "train, validation and test"),
        ("by_numpy", "train, validation and test"),
        ("by_numpy_generator", "train, validation and test"),
        ("by_python", "train, validation and test"),
        ("train_is_shuffled", "train"),
        ("sample_of_the_test_split", "test"),
    ],
)
def test_splits_without_a_seed_are_refused(tmp_path: Path, name: str, splits: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(
        TaskError, match=rf"{name} gives another {splits} split each .*torch.Generator\(\).manual_seed\(0\)"
    ):
        check(tmp_path, name)


@pytest.mark.parametrize("name", ["by_torch_with_a_seed", "by_torch_seeded_inside", "only_once"])
def test_splits_that_stay_the_same_pass(tmp_path: Path, name: str) -> None:
    with random_state_kept():
        report = check(tmp_path, name)
    assert report.warnings == ()
    assert DataReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_data_that_take_long_to_load_are_loaded_once(tmp_path: Path) -> None:
    assert check(tmp_path, "by_torch", load_time_s=60.0).warnings == ()


def test_a_training_set_that_augments_itself_and_judges_is_named(tmp_path: Path) -> None:
    (warning,) = check(tmp_path, "held_out_of_augmented").warnings
    assert "no validation split is given, so 8 training examples are held out, and the training set augments" in warning
    assert "Subset(clean, indices)" in warning
    validation, test = check(tmp_path, "subsets_of_augmented").warnings
    assert "the validation split augments itself" in validation
    assert "the test split augments itself" in test
    assert check(tmp_path, "train_alone_augments").warnings == ()
