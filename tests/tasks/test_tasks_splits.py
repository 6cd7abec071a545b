"""Splits give the right examples, whatever they are made of."""

import copy

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from autoprune.errors import TaskError
from autoprune.tasks.splits import DatasetSplit, NamedSplit, SubsetSplit, TensorSplit, as_split, hold_out


class PairDataset(Dataset[tuple[tuple[torch.Tensor, torch.Tensor], int]]):
    """Two inputs an example, and a plain int for a target."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[tuple[torch.Tensor, torch.Tensor], int]:
        return (torch.full((2,), index), torch.tensor(index)), index


@pytest.mark.parametrize("make", [torch.as_tensor, np.asarray])
def test_tensor_split(make: object) -> None:
    split = TensorSplit(make([[0.0], [1.0], [2.0]]), make([3, 4, 5]))
    inputs, targets = split.batch(torch.tensor([2, 0]))
    assert len(split) == 3
    assert inputs.tolist() == [[2.0], [0.0]]
    assert targets.tolist() == [5, 3]


def test_tensor_split_of_a_dict_and_a_tuple() -> None:
    tokens, mask = torch.arange(6).view(3, 2), torch.ones(3, 2)
    inputs, _ = TensorSplit({"tokens": tokens, "mask": mask}, torch.zeros(3)).batch(torch.tensor([1]))
    assert inputs["tokens"].tolist() == [[2, 3]]
    inputs, _ = TensorSplit((tokens, mask), torch.zeros(3)).batch(torch.tensor([1]))
    assert isinstance(inputs, tuple)
    assert inputs[0].tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4), r"inputs \(3, 2\) and targets \(4,\)"),
        (torch.zeros(3), torch.tensor(1), "same number of examples"),
        (["a", "b"], torch.zeros(2), "must hold tensors or numeric arrays"),
        (np.array(["a", "b"]), torch.zeros(2), "must hold tensors or numeric arrays"),
    ],
)
def test_tensor_split_refuses_what_does_not_fit(inputs: object, targets: torch.Tensor, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        TensorSplit(inputs, targets)


def test_dataset_split_agrees_with_the_tensors_it_wraps() -> None:
    inputs, targets = torch.randn(6, 3), torch.arange(6)
    split = DatasetSplit(TensorDataset(inputs, targets))
    got_inputs, got_targets = split.batch(torch.tensor([4, 1]))
    torch.testing.assert_close(got_inputs, inputs[[4, 1]])
    assert got_targets.tolist() == [4, 1]
    assert not hasattr(split, "targets")


def test_dataset_split_hands_several_inputs_over_as_a_tuple() -> None:
    inputs, targets = DatasetSplit(PairDataset()).batch(torch.tensor([3, 0]))
    assert isinstance(inputs, tuple)
    assert inputs[0].tolist() == [[3, 3], [0, 0]]
    assert targets.tolist() == [3, 0]


def test_dataset_split_needs_pairs() -> None:
    with pytest.raises(TaskError, match=r"must be \(input, target\), got a tuple of 1: Tensor"):
        DatasetSplit(TensorDataset(torch.zeros(2))).batch(torch.tensor([0]))


class Labelled(Dataset[tuple[torch.Tensor, object]]):
    """Four examples, each with the same target."""

    def __init__(self, target: object) -> None:
        self.target = target

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[torch.Tensor, object]:
        return torch.zeros(2), self.target


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("tabby", r"a str, 'tabby'"),
        ({"box": torch.zeros(4)}, "a dict"),
        ((1, torch.zeros(2)), "a tuple of 2: int, Tensor"),
    ],
)
def test_dataset_split_needs_targets_in_one_tensor(target: object, told: str) -> None:
    with pytest.raises(TaskError, match=f"targets of a dataset must be numbers or tensors, got {told}"):
        DatasetSplit(Labelled(target)).batch(torch.tensor([0, 1]))


@pytest.mark.parametrize("text", ["a cat", b"a cat"])
def test_dataset_split_needs_numbers_as_inputs(text: object) -> None:
    split = DatasetSplit([(text, 0), (text, 1)])
    with pytest.raises(
        TaskError, match=r"inputs of a dataset must be numbers or tensors, got a (str|bytes), b?'a cat'"
    ):
        split.batch(torch.tensor([0, 1]))


class Photos(Dataset[tuple[torch.Tensor, int]]):
    """Twelve examples: the sixth is no picture, the eighth has another size, the tenth is missing."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int] | None:
        if index == 6:
            raise OSError("photo.jpg is cut short")
        return None if index == 10 else (torch.zeros(4 if index == 8 else 2), index)


@pytest.mark.parametrize(
    ("split", "indices", "message"),
    [
        (
            Photos(),
            [0, 6, 1],
            r"reading example 6 of the test split raised OSError: photo.jpg is cut short \(.*py:\d+\)",
        ),
        (Photos(), [6], "reading example 6 of the test split raised OSError"),
        (Photos(), [1, 2, 8], "reading example 1 and example 8 of the test split raised RuntimeError: stack expects"),
        (
            Photos(),
            [0, 10],
            r"reading example 10 of the test split failed: items of a dataset must be \(input, target\)",
        ),
        (Subset(Photos(), [5, 4, 6]), [0, 2], r"reading example 2 \(6 of the whole dataset\) of the test split"),
        (Subset(Subset(Photos(), [1, 6, 2]), [2, 1]), [1], r"reading example 1 \(6 of the whole dataset\)"),
        (SubsetSplit(DatasetSplit(Photos()), torch.tensor([3, 6])), [0, 1], r"reading example 1 \(6 of the whole"),
    ],
)
def test_a_named_split_tells_the_example_that_cannot_be_read(split: object, indices: list[int], message: str) -> None:
    named = NamedSplit(as_split(split, "test"), "test")
    with pytest.raises(TaskError, match=message):
        named.batch(torch.tensor(indices))


@pytest.mark.parametrize(("indices", "told"), [([3], "example 3"), ([2, 3, 0], "examples 2 to 0")])
def test_what_can_be_read_the_second_time_is_told(indices: list[int], told: str) -> None:
    class Flaky(Photos):
        def __init__(self) -> None:
            self.has_failed = False

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int] | None:
            if index == 3 and not self.has_failed:
                self.has_failed = True
                raise OSError("stale file handle")
            return super().__getitem__(index)

    with pytest.raises(TaskError, match=rf"reading {told} of the test split raised OSError: stale file handle"):
        NamedSplit(as_split(Flaky(), "test"), "test").batch(torch.tensor(indices))


def test_a_named_split_is_the_split_in_all_else() -> None:
    split = NamedSplit(TensorSplit(torch.arange(3), torch.arange(3)), "train")
    assert len(copy.deepcopy(split)) == 3
    assert split.targets.tolist() == split.batch(torch.arange(3))[1].tolist() == [0, 1, 2]
    assert not hasattr(split, "transform")


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_out_of_memory_is_no_fault_of_an_example(error: type[Exception]) -> None:
    class Large(Photos):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            raise error("too much")

    with pytest.raises(error):
        NamedSplit(DatasetSplit(Large()), "train").batch(torch.arange(2))


def test_subset_split() -> None:
    split = SubsetSplit(TensorSplit(torch.arange(10), torch.arange(10)), torch.tensor([7, 2, 5]))
    assert len(split) == 3
    assert split.batch(torch.tensor([2, 0]))[0].tolist() == [5, 7]
    assert split.targets.tolist() == [7, 2, 5]


def test_as_split() -> None:
    pair = (torch.zeros(2, 1), torch.zeros(2))
    assert isinstance(as_split(pair, "train"), TensorSplit)
    assert isinstance(as_split(TensorDataset(*pair), "train"), DatasetSplit)
    split = TensorSplit(*pair)
    assert as_split(split, "train") is split


@pytest.mark.parametrize("value", [None, 3, "train", {"a": 1}, (1, 2, 3)])
def test_as_split_refuses_the_rest(value: object) -> None:
    with pytest.raises(TaskError, match=r"task.data: test must be a pair \(inputs, targets\)"):
        as_split(value, "task.data: test")


def test_as_split_refuses_none_at_all() -> None:
    with pytest.raises(TaskError, match=r"task.data: test has no examples"):
        as_split((torch.zeros(0, 3), torch.zeros(0)), "task.data: test")


def test_hold_out_divides_and_repeats() -> None:
    train, held = hold_out(20, 5, seed=3, where="data")
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(20))
    assert len(held) == 5
    assert torch.equal(hold_out(20, 5, seed=3, where="data")[1], held)
    assert not torch.equal(hold_out(20, 5, seed=4, where="data")[1], held)
    with pytest.raises(TaskError, match=r"must be in \(0, 20\).*got 20"):
        hold_out(20, 20, seed=0, where="data")
