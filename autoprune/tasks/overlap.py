"""Find the examples that stand in two splits: by their indices in one dataset, or by equal inputs."""

import hashlib
import time
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import Subset

from autoprune.errors import TaskError
from autoprune.network.call import plain_inputs
from autoprune.tasks.splits import DatasetSplit, NamedSplit, SubsetSplit, TensorSplit
from autoprune.tasks.task import Data, Split

READ_TIME_S = 2.0
"""How long examples are read to compare their inputs, all splits together."""

N_AT_ONCE = 256
"""Examples of tensors in memory that are read at once."""


def shared_examples(data: Data, augmenting: Collection[str] = ()) -> Iterator[str]:
    """Warn of the examples that stand in two splits, as far as the examples can be read in ``READ_TIME_S``.

    Equal inputs may be chance, where inputs have few values, or duplicates in the data as they were collected. Only
    the same examples of the same dataset are none.

    Args:
        augmenting: Splits whose examples differ between two reads: those are compared by index alone.

    Raises:
        TaskError: If all examples of the validation or the test split are examples of the training split, by index.
            Or if an example can't be read.
    """
    places = {name: _places(getattr(data, name)) for name in ("train", "validation", "test")}
    deadline = time.perf_counter() + READ_TIME_S
    contents = {
        name: {} if name in augmenting else _contents(getattr(data, name), deadline)
        for name in ("test", "validation", "train")  # those first of which fewer are lost
    }
    for one, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        n_examples = len(getattr(data, one))
        twins = _same_places(places[one], places[other])
        if other == "train" and len(twins) == n_examples:
            raise TaskError(
                f"task.data: the {one} split is a part of the training split: all of its {n_examples} examples are "
                "trained on, so it judges nothing. Keep them apart."
            )
        for content, indices in contents[one].items():
            if content in contents[other]:
                twins |= {index: twins.get(index, contents[other][content][0]) for index in indices}
        if twins:
            index, twin = min(twins.items())
            whole = all(_n_read(contents[name]) == len(getattr(data, name)) for name in (one, other))
            at_least = "" if whole or len(twins) == n_examples else "at least "
            yield (
                f"task.data: {at_least}{len(twins)} of {n_examples} {one} examples also stand in the {other} split "
                f"(example {index} has the inputs of its example {twin}): what is measured on them flatters. Leave "
                "them out of one of the two."
            )


def _places(split: Any) -> tuple[object, torch.Tensor]:
    """Where each example comes from: the dataset, and the index in it, shape ``(n,)``."""
    indices = torch.arange(len(split))
    while True:
        if isinstance(split, NamedSplit):
            split = split.split
        elif isinstance(split, SubsetSplit):
            split, indices = split.split, split.indices[indices]
        elif isinstance(split, Subset):
            split, indices = split.dataset, torch.as_tensor(split.indices)[indices]
        elif isinstance(split, DatasetSplit):
            split = split.dataset
        else:
            break
    tensors = tree_leaves(plain_inputs(split.inputs)) if isinstance(split, TensorSplit) else []
    # Two splits may be made of the same tensors.
    return (tensors[0].data_ptr(), tensors[0].stride()) if tensors else id(split), indices


def _same_places(one: tuple[object, torch.Tensor], other: tuple[object, torch.Tensor]) -> dict[int, int]:
    """Examples of one split that come from where examples of another come from: index -> index in the other."""
    if one[0] != other[0]:
        return {}
    known = {place: index for index, place in enumerate(other[1].tolist())}
    return {index: known[place] for index, place in enumerate(one[1].tolist()) if place in known}


def _contents(split: Split, deadline: float) -> dict[bytes, list[int]]:
    """Hash of an example's inputs -> the examples that have these, of those that can be read until the deadline."""
    whole: Any = split
    while isinstance(whole, NamedSplit | SubsetSplit):
        whole = whole.split
    found: dict[bytes, list[int]] = {}
    for indices in torch.split(torch.arange(len(split)), N_AT_ONCE if isinstance(whole, TensorSplit) else 1):
        if time.perf_counter() > deadline:
            break
        leaves = tree_leaves(plain_inputs(split.batch(indices)[0]))
        for row, index in enumerate(indices.tolist()):
            content = hashlib.blake2b(digest_size=12)
            for leaf in leaves:
                content.update(_bytes_of(leaf[row]))
            found.setdefault(content.digest(), []).append(index)
    return found


def _n_read(contents: dict[bytes, list[int]]) -> int:
    return sum(map(len, contents.values()))


def _bytes_of(value: Any) -> bytes:
    if not isinstance(value, torch.Tensor):
        return repr(value).encode()
    flat = value.detach().cpu().contiguous().reshape(-1)
    return f"{flat.dtype}{tuple(value.shape)}".encode() + flat.view(torch.uint8).numpy().tobytes()
