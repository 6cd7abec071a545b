"""What is known of one tensor of the trace: for every dimension, which node each index carries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
"""Indices into a dimension, or into the channels of a group."""

Nodes = npt.NDArray[np.int64]
"""Nodes of the dependency graph, by number."""

Dim = Nodes | None
"""Nodes of a dimension's indices, shape ``(size,)``; ``None`` where none of them can ever leave (pixels, tokens)."""

FIXED = 0
"""The node of an index that can't leave, in a dimension where others can."""


@dataclass(frozen=True)
class Value:
    """One tensor's nodes.

    Attributes:
        zero: Whether the entries of channels that leave are zero in the masked network.
        weight: Whether it is a parameter or made of parameters alone.
        remade: Whether it is of parameters and in no way one of them, as several side by side: the cost of a product
            with it is then no parameter's.
    """

    shape: tuple[int, ...]
    dims: tuple[Dim, ...]
    zero: bool = True
    weight: bool = False
    remade: bool = False

    @property
    def owned(self) -> bool:
        """Whether the cost of a product with it is a parameter's or a buffer's."""
        return self.weight and not self.remade

    @property
    def live(self) -> bool:
        """Whether any of its indices may leave."""
        return any(dim is not None for dim in self.dims)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)


def static(shape: Sequence[int]) -> Value:
    """Make a tensor whose every size is constant."""
    return Value(tuple(shape), (None,) * len(shape), zero=False)
