"""What is known of one tensor on the tape: for every dimension, which atom each index carries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Atoms = npt.NDArray[np.int64]
Dim = Atoms | None
"""Atoms of a dimension's indices, shape ``(size,)``; ``None`` where none of them can ever leave (pixels, tokens)."""

FIXED = 0
"""The atom of an index that can't leave, in a dimension where others can."""


@dataclass(frozen=True)
class Value:
    """One tensor's atoms.

    Attributes:
        zero: Whether the entries of channels that leave are zero in the masked network.
        weight: Whether it is a parameter or made of parameters alone.
    """

    shape: tuple[int, ...]
    dims: tuple[Dim, ...]
    zero: bool = True
    weight: bool = False

    @property
    def live(self) -> bool:
        """Whether any of its indices may leave."""
        return any(dim is not None for dim in self.dims)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)


def static(shape: Sequence[int]) -> Value:
    """A tensor whose every size is constant."""
    return Value(tuple(shape), (None,) * len(shape), zero=False)
