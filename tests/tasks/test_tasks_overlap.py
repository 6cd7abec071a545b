"""Examples that stand in two splits are counted, by their indices or by equal inputs."""

import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from autoprune.errors import TaskError
from autoprune.tasks import overlap
from autoprune.tasks.overlap import shared_examples
from autoprune.tasks.splits import DatasetSplit, NamedSplit, SubsetSplit, TensorSplit, as_split, hold_out
from autoprune.tasks.task import Data, Split

GENERATOR = torch.Generator().manual_seed(0)
INPUTS, TARGETS = torch.randn(60, 5, generator=GENERATOR), torch.zeros(60, dtype=torch.long)
WHOLE = TensorDataset(INPUTS, TARGETS)


def data(train: object, validation: object, test: object = ((torch.ones(3, 5)), torch.zeros(3))) -> Data:
    splits: dict[str, Split] = {}
    for name, split in (("train", train), ("validation", validation), ("test", test)):
        splits[name] = NamedSplit(as_split(split, name), name)
    return Data(**splits)


@pytest.mark.parametrize(
    "splits",
    [
        data(Subset(WHOLE, range(40)), Subset(WHOLE, range(40, 60))),
        data(*(SubsetSplit(DatasetSplit(WHOLE), part) for part in hold_out(60, 20, 0, "data"))),
        data((INPUTS[::2], TARGETS[::2]), (INPUTS[1::2], TARGETS[1::2])),
        data(({"a": INPUTS[:9], "b": INPUTS[9:18]}, TARGETS[:9]), ({"a": INPUTS[9:18], "b": INPUTS[:9]}, TARGETS[:9])),
    ],
)
def test_splits_apart(splits: Data) -> None:
    assert list(shared_examples(splits)) == []


@pytest.mark.parametrize(
    "splits",
    [
        data(Subset(WHOLE, range(40)), Subset(WHOLE, range(37, 60))),
        data((INPUTS[:40], TARGETS[:40]), (INPUTS[37:].clone(), TARGETS[37:] + 1)),
        data(Subset(WHOLE, range(40)), TensorSplit(INPUTS[37:], TARGETS[37:])),
        data(TensorDataset(INPUTS[:40], TARGETS[:40]), Subset(TensorDataset(INPUTS.clone(), TARGETS), range(37, 60))),
    ],
)
def test_shared_examples_are_counted(splits: Data) -> None:
    (warning,) = shared_examples(splits)
    assert warning.startswith(
        "task.data: 3 of 23 validation examples also stand in the train split (example 0 has the inputs of its example "
        "37)"
    )


def test_a_split_that_augments_itself_is_compared_by_index() -> None:
    splits = data(Subset(WHOLE, range(40)), Subset(WHOLE, range(37, 60)))
    assert len(list(shared_examples(splits, {"train", "validation"}))) == 1
    apart = data((INPUTS[:40], TARGETS[:40]), (INPUTS[37:].clone(), TARGETS[37:]))
    assert list(shared_examples(apart, {"train"})) == []


def test_what_takes_too_long_is_compared_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "READ_TIME_S", 0.0)
    (warning,) = shared_examples(data(Subset(WHOLE, range(40)), Subset(WHOLE, range(37, 60))))
    assert "task.data: at least 3 of 23 validation examples" in warning


@pytest.mark.parametrize(
    ("splits", "name"),
    [
        (data(WHOLE, WHOLE), "validation"),
        (data((INPUTS, TARGETS), (INPUTS, TARGETS)), "validation"),
        (data(Subset(WHOLE, range(40)), Subset(WHOLE, range(40, 60)), Subset(WHOLE, range(7))), "test"),
    ],
)
def test_a_whole_split_that_is_trained_on_is_refused(splits: Data, name: str) -> None:
    with pytest.raises(TaskError, match=f"the {name} split is a part of the training split: all of its"):
        list(shared_examples(splits))


def test_equal_inputs_of_few_values_are_no_mistake() -> None:
    bits = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    (warning,) = shared_examples(data((bits.repeat(9, 1), torch.zeros(36)), (bits[:3].clone(), torch.zeros(3))))
    assert "3 of 3 validation examples" in warning
