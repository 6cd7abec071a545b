"""Data splits: tensors in memory, any map-style torch dataset, or a part of another split."""

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import Dataset, Subset, default_collate

from autoprune.errors import AutopruneError, TaskError, describe_error, printable
from autoprune.network.call import Inputs
from autoprune.tasks.task import Split


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """A split held in memory.

    Attributes:
        inputs: A tensor, or a tuple or dict of tensors, with first dimension n. NumPy arrays are turned into tensors.
        targets: A tensor or NumPy array with first dimension n.

    Raises:
        TaskError: If a part is no tensor or array, or the first dimensions differ.
    """

    inputs: Inputs
    targets: torch.Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tree_map(_as_tensor, self.inputs))
        object.__setattr__(self, "targets", _as_tensor(self.targets))
        lengths = [len(tensor) if tensor.ndim else None for tensor in tree_leaves((self.inputs, self.targets))]
        if len(set(lengths)) != 1 or None in lengths:
            raise TaskError(
                f"inputs and targets of a split must have the same number of examples in their first dimension, got "
                f"inputs {_shapes(self.inputs)} and targets {_shapes(self.targets)}."
            )

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, indices: torch.Tensor) -> tuple[Inputs, torch.Tensor]:
        """Read examples by index, shape ``(n,)``."""
        return tree_map(lambda tensor: tensor[indices], self.inputs), self.targets[indices]


@dataclass(frozen=True, eq=False)
class DatasetSplit:
    """A split read from a map-style torch dataset of ``(input, target)`` items, joined by torch's ``default_collate``.

    The dataset is read in the training process, one example after the other.
    """

    dataset: Dataset[Any]

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    @property
    def targets(self) -> torch.Tensor:
        """The dataset's own ``targets``, as its ``target_transform`` turns them out.

        Raises:
            AttributeError: If it keeps none, or they are not what the transform takes.
        """
        targets = self.dataset.targets  # type: ignore[attr-defined]
        transform = getattr(self.dataset, "target_transform", None)
        if transform is None:
            return _as_tensor(targets)
        plain = targets.tolist() if isinstance(targets, torch.Tensor | np.ndarray) else targets
        try:
            return _as_tensor([transform(target) for target in plain])
        except Exception as error:
            raise AttributeError(f"the targets are known only by reading: {error}") from error

    def batch(self, indices: torch.Tensor) -> tuple[Inputs, torch.Tensor]:
        """Read examples by index, shape ``(n,)``."""
        items = [self.dataset[int(index)] for index in indices]
        if not (isinstance(items[0], tuple | list) and len(items[0]) == 2):
            raise TaskError(f"items of a dataset must be (input, target), got {_describe(items[0])}.")
        inputs, targets = default_collate(items)
        if isinstance(items[0][0], str | bytes):
            raise TaskError(
                f"inputs of a dataset must be numbers or tensors, got {_describe(items[0][0])}. Encode them."
            )
        if not isinstance(targets, torch.Tensor):
            raise TaskError(
                f"targets of a dataset must be numbers or tensors, got {_describe(items[0][1])}. Turn them into one "
                "number or tensor for each example, such as a class's index, in the dataset."
            )
        return tuple(inputs) if isinstance(inputs, list) else inputs, targets


@dataclass(frozen=True, eq=False)
class NamedSplit:
    """One of a task's three splits, which tells the example that can't be read. All else is the split's own.

    Attributes:
        name: train, validation or test.
    """

    split: Split
    name: str

    def __len__(self) -> int:
        return len(self.split)

    def __getattr__(self, attribute: str) -> Any:
        if attribute == "split":  # while it is unpickled or copied
            raise AttributeError(attribute)
        return getattr(self.split, attribute)

    def batch(self, indices: torch.Tensor) -> tuple[Inputs, torch.Tensor]:
        """Read examples by index, shape ``(n,)``.

        Raises:
            TaskError: If reading raises, with the example; out of memory stays what it is.
        """
        try:
            return self.split.batch(indices)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise self._unreadable(indices, error) from error

    def _unreadable(self, indices: torch.Tensor, error: BaseException) -> TaskError:
        """The error of the first example that can't be read alone, or not together with the first one."""
        first, *others = indices.tolist()
        for asked in ([first], *([other] for other in others), *([first, other] for other in others)):
            try:
                self.split.batch(torch.tensor(asked))
            except (MemoryError, torch.OutOfMemoryError):
                break
            except (Exception, SystemExit) as found:
                told = [f"example {index}{_origin(self.split, index)}" for index in asked]
                return TaskError(f"task.data: reading {' and '.join(told)} of the {self.name} split {_raised(found)}")
        several = f"examples {first} to {indices[-1]}" if others else f"example {first}"
        return TaskError(f"task.data: reading {several} of the {self.name} split {_raised(error)}")


def _origin(split: Any, index: int) -> str:
    """Where an example of a part of a dataset comes from; empty for one of no part."""
    is_part = False
    while True:
        if isinstance(split, SubsetSplit):
            split, index, is_part = split.split, int(split.indices[index]), True
        elif isinstance(split, Subset):
            split, index, is_part = split.dataset, int(split.indices[index]), True
        elif isinstance(split, DatasetSplit):
            split = split.dataset
        elif isinstance(split, NamedSplit):
            split = split.split
        else:
            return f" ({index} of the whole dataset)" if is_part else ""


def _raised(error: BaseException) -> str:
    if isinstance(error, AutopruneError):
        return f"failed: {error}"
    return f"raised {describe_error(error)}. Mend it, or put another in its place."


@dataclass(frozen=True, eq=False)
class SubsetSplit:
    """Some examples of another split, by index, shape ``(n,)``."""

    split: Split
    indices: torch.Tensor

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def targets(self) -> torch.Tensor:
        """Targets of the examples, where the split keeps them in memory."""
        targets: torch.Tensor = self.split.targets[self.indices]  # type: ignore[attr-defined]
        return targets

    def batch(self, indices: torch.Tensor) -> tuple[Inputs, torch.Tensor]:
        """Read examples by index, shape ``(n,)``."""
        return self.split.batch(self.indices[indices])


def as_split(split: Any, where: str) -> Split:
    """Make a split of whatever a data callable may return for one.

    Args:
        split: A split, a pair ``(inputs, targets)`` of tensors or arrays, or a map-style torch dataset.
        where: What to call it in an error, such as ``"task.data: train"``.

    Raises:
        TaskError: If it is none of these, or has no examples.
    """
    made: Split
    if hasattr(split, "batch") and hasattr(split, "__len__"):
        made = split
    elif isinstance(split, tuple | list) and len(split) == 2:
        try:
            made = TensorSplit(*split)
        except TaskError as error:
            raise TaskError(f"{where}: {error}") from error
    elif (
        hasattr(split, "__getitem__") and hasattr(split, "__len__") and not isinstance(split, str | dict | tuple | list)
    ):
        made = DatasetSplit(split)
    else:
        raise TaskError(
            f"{where} must be a pair (inputs, targets), a torch Dataset with a length, or a Split, got "
            f"{_describe(split)}."
        )
    if len(made) == 0:
        raise TaskError(f"{where} has no examples.")
    return made


def hold_out(n_examples: int, n_held: int, seed: int, where: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Divide examples at random into those to train on and those held out.

    Returns:
        Indices to train on, shape ``(n_examples - n_held,)``, in random order, and indices held out, shape
        ``(n_held,)``.

    Raises:
        TaskError: Unless ``0 < n_held < n_examples``.
    """
    if not 0 < n_held < n_examples:
        raise TaskError(
            f"{where}: examples held out for validation must be in (0, {n_examples}), the number of training examples, "
            f"got {n_held}."
        )
    order = shuffled(n_examples, seed)
    return order[n_held:], order[:n_held]


def spread_indices(n_examples: int, n_chosen: int) -> torch.Tensor:
    """Choose indices at even distances, the first and the last among them, shape ``(min(n_examples, n_chosen),)``."""
    return torch.linspace(0, n_examples - 1, min(n_examples, n_chosen), dtype=torch.float64).round().long()


def shuffled(n_examples: int, seed: int) -> torch.Tensor:
    """Shuffle the indices 0 to ``n_examples - 1``, shape ``(n_examples,)``."""
    return torch.randperm(n_examples, generator=torch.Generator().manual_seed(seed))


def _as_tensor(values: Any) -> torch.Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(f"a split must hold tensors or numeric arrays, got {_describe(values)} ({error}).") from error


def _shapes(tree: Any) -> Any:
    return tree_map(lambda tensor: tuple(tensor.shape), tree)


def _describe(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: {', '.join(type(item).__name__ for item in value[:5])}"
    if isinstance(value, str | bytes):
        return f"a {type(value).__name__}, {printable(repr(value)[:40])}"
    return f"a {type(value).__name__}" + (f" of {value.dtype}" if isinstance(value, np.ndarray) else "")
