"""The fingerprint of a split: its length and its content in a few numbers, to compare it between processes and lives.

Numbers that are no floats are hashed. Floats are summed with fixed weights and compared with a tolerance: the mean that
a data callable subtracts differs in the last bits with the number of threads and the processor.
"""

import hashlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from autoprune.errors import TaskError
from autoprune.network.call import plain_inputs
from autoprune.tasks.splits import NamedSplit, SubsetSplit, TensorSplit, spread_indices
from autoprune.tasks.task import Data, Split

SPLITS = ("train", "validation", "test")

N_PARTS = 64
"""Parts that a split's examples are divided into; each has a hash and a sum."""

MAX_BYTES_IN_MEMORY = 2**28
"""A split of tensors is read whole up to this size."""

READ_TIME_S = 0.15
"""About how long the examples of another split are read, once. It decides how many are."""

N_READ = (8, 1024)
"""Fewest and most examples that are read of it."""

TOLERANCE = 1e-3
"""Difference of two sums that rounding may make, as a share of the part's Euclidean norm."""

SEEDLESS = (
    "A split or a shuffle without a seed does that: give it one, as in random_split(..., "
    "generator=torch.Generator().manual_seed(0))."
)


@dataclass(frozen=True)
class Fingerprint:
    """What one split holds.

    Attributes:
        n_read: Examples that were read, at even distances.
        augments: Whether an example differs between two reads with different states of the global random generators.
        varying: Places of the tensors, among those of inputs and targets, that differ even with the same states; they
            are not compared.
        hashes: Of each part's shapes, types, and numbers that are no floats.
        sums: Of each part's floats, weighted.
        norms: Euclidean norms of each part's floats.
    """

    n_examples: int
    n_read: int
    augments: bool
    varying: tuple[int, ...]
    hashes: tuple[str, ...]
    sums: tuple[float, ...]
    norms: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fingerprint":
        """Read what :meth:`to_dict` gave; raises TypeError or ValueError if it is something else."""
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})


def take_fingerprint(split: Split) -> Fingerprint:
    """Take the fingerprint of a split; the global random generators are afterwards as before.

    A split of tensors in memory is read whole where it is small, any other for ``READ_TIME_S``. An example is read
    with the random generators in a state that its index gives, then in another, to see whether the split augments
    itself, then in the first again, to see whether it does so by random numbers of its own.

    Raises:
        TaskError: If an example can't be read.
    """
    with random_state_kept():
        if _is_small_in_memory(split):
            return _measured(split, len(split), False, ())
        indices = spread_indices(len(split), _n_affordable(split)).tolist()
        augments, varying = False, set[int]()
        for index in indices:
            first = _read(split, index, index)
            if _unlike(first, _read(split, index, index + len(split))):
                augments = True
        if augments:
            for index in indices:
                varying |= _unlike(_read(split, index, index), _read(split, index, index))
        return _measured(split, len(indices), augments, tuple(sorted(varying)))


def difference(split: Split, known: Fingerprint) -> str | None:
    """Return what of a split is not as its fingerprint says, in a few words; ``None`` if nothing is.

    Raises:
        TaskError: If an example can't be read.
    """
    if len(split) != known.n_examples:
        return f"{len(split)} examples instead of {known.n_examples}"
    with random_state_kept():
        found = _measured(split, known.n_read, known.augments, known.varying)
        unlike = _unlike_parts(found, known)
        if unlike and not _is_small_in_memory(split):  # a part that is not even like itself tells nothing
            again = _measured(split, known.n_read, known.augments, known.varying)
            unlike = [part for part in unlike if part not in _unlike_parts(found, again)]
    if not unlike:
        return None
    if known.n_read <= N_PARTS:
        return f"other content in {len(unlike)} of {known.n_read} examples that were compared"
    return f"other content in {len(unlike)} of {len(known.hashes)} parts"


def differences(data: Data, known: Mapping[str, Fingerprint]) -> dict[str, str]:
    """Return the splits that are not as their fingerprints say: name -> difference."""
    found = {name: difference(getattr(data, name), known[name]) for name in SPLITS if name in known}
    return {name: told for name, told in found.items() if told is not None}


def told_of(differing: Mapping[str, str]) -> str:
    """Join differences: ``the validation split has 9 examples instead of 10, the test split ...``."""
    return ", ".join(f"the {name} split has {told}" for name, told in differing.items())


def check_same_splits(data: Data, known: Mapping[str, Fingerprint], where: str = "") -> None:
    """Raise TaskError if a split is not as its fingerprint says.

    Args:
        where: Which process reads them, to begin the message with.
    """
    differing = differences(data, known)
    if differing:
        raise TaskError(
            f"task.data: {where}{told_of(differing)}: not the data that the study began with. {SEEDLESS} If the data "
            "were changed on purpose, give the study another name."
        )


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put the global random generators of torch (on the CPU), NumPy and Python back at the end."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def seed_all(seed: int) -> None:
    """Seed the global random generators of torch (on the CPU only), NumPy and Python."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _read(split: Split, index: int, seed: int) -> list[Any]:
    """Read one example with the random generators in the state of a seed: the leaves of its inputs and targets."""
    seed_all(seed)
    return _leaves(split, torch.tensor([index]))


def _leaves(split: Split, indices: torch.Tensor) -> list[Any]:
    inputs, targets = split.batch(indices)
    return tree_leaves((plain_inputs(inputs), targets))


def _n_affordable(split: Split) -> int:
    least, most = N_READ
    _read(split, 0, 0)
    began = time.perf_counter()
    for index in spread_indices(len(split), 4).tolist():
        _read(split, index, index)
    elapsed = (time.perf_counter() - began) / min(len(split), 4)
    return min(max(least, int(READ_TIME_S / elapsed)), most)


def _is_small_in_memory(split: Any) -> bool:
    share = 1.0
    while isinstance(split, NamedSplit | SubsetSplit):
        if isinstance(split, SubsetSplit):
            share *= len(split) / max(1, len(split.split))
        split = split.split
    if not isinstance(split, TensorSplit):
        return False
    tensors = tree_leaves((plain_inputs(split.inputs), split.targets))
    n_bytes: float = share * sum(tensor.nbytes for tensor in tensors)
    return n_bytes <= MAX_BYTES_IN_MEMORY


def _measured(split: Split, n_read: int, augments: bool, varying: Sequence[int]) -> Fingerprint:
    """Read examples at even distances and take hash, sum and norm of every part of them."""
    whole = _is_small_in_memory(split)
    hashes, sums, norms = [], [], []
    for part in torch.tensor_split(spread_indices(len(split), n_read), min(N_PARTS, n_read)):
        content = _Content(varying)
        if whole:
            content.add(_leaves(split, part), 0)
        else:
            for place, index in enumerate(part.tolist()):
                content.add(_read(split, index, index), place)
        hashes.append(content.hash.hexdigest())
        sums.append(content.sum)
        norms.append(content.squares**0.5)
    return Fingerprint(len(split), n_read, augments, tuple(varying), tuple(hashes), tuple(sums), tuple(norms))


class _Content:
    """Gathers the hash, the sum and the squares of a part."""

    def __init__(self, varying: Sequence[int]) -> None:
        self.hash = hashlib.blake2b(digest_size=6)
        self.sum = self.squares = 0.0
        self._varying = varying

    def add(self, leaves: Sequence[Any], place: int) -> None:
        """Add examples.

        Args:
            leaves: Each of shape ``(n, ...)``.
            place: Of the first of the examples in the part.
        """
        for number, leaf in enumerate(leaves):
            if number in self._varying:
                self.hash.update(b"varying")
            elif isinstance(leaf, torch.Tensor):
                self._add(leaf.detach().cpu(), place)
            else:
                self.hash.update(repr(leaf).encode())

    def _add(self, leaf: torch.Tensor, place: int) -> None:
        self.hash.update(f"{leaf.dtype}{tuple(leaf.shape[1:])}".encode())
        if leaf.is_complex():
            leaf = torch.view_as_real(leaf)
        if not leaf.is_floating_point():
            self.hash.update(leaf.contiguous().numpy().tobytes())
            return
        rows = leaf.reshape(len(leaf), -1).double()  # (n, n_numbers)
        if not bool(rows.isfinite().all()):
            self.hash.update(rows.isfinite().numpy().tobytes())
            rows = torch.nan_to_num(rows, 0.0, 0.0, 0.0)
        shares = 1.0 + 0.5 * torch.cos(torch.arange(place, place + len(rows), dtype=torch.float64))  # (n,)
        self.sum += float(shares @ (rows @ _weights(rows.shape[1])))
        self.squares += float(rows.square().sum())


@lru_cache(maxsize=8)
def _weights(n: int) -> torch.Tensor:
    """Fixed weights, shape ``(n,)``, of about mean 1/2, so that another order and another mean show in the sum."""
    return 0.5 + torch.cos(torch.arange(n, dtype=torch.float64) * 1.6180339887)


def _unlike(first: Sequence[Any], second: Sequence[Any]) -> set[int]:
    """Places of the leaves that differ between two reads of an example."""
    if len(first) != len(second):
        return set(range(max(len(first), len(second))))
    return {place for place, (one, other) in enumerate(zip(first, second, strict=True)) if not _same(one, other)}


def _same(one: Any, other: Any) -> bool:
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return repr(one) == repr(other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if torch.equal(one, other):
        return True
    return one.is_floating_point() and torch.allclose(one, other, 0, 0, equal_nan=True)


def _unlike_parts(one: Fingerprint, other: Fingerprint) -> list[int]:
    return [
        part
        for part in range(len(one.hashes))
        if one.hashes[part] != other.hashes[part]
        or abs(one.sums[part] - other.sums[part]) > TOLERANCE * max(one.norms[part], other.norms[part])
    ]
