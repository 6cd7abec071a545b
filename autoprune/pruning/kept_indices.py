"""Which elements of a network a pruned one kept, and the masked network that the pruned one must equal."""

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import nn

from autoprune.pruning.copies import named_tensors, shareable_tensors, weight_sharing_copy
from autoprune.pruning.plan import Block

_DIRECTIONS = (".original1", "weight_v")
"""Ends of the names of weights that weight norm scales to a length of their own."""


class KeptIndices(Mapping[str, torch.Tensor]):
    """Name of a parameter or buffer -> flat indices into the tensor before pruning, in the shape after it.

    The indices are ``int64`` on the CPU. A tensor's flat indices are as large as the tensor itself, so they are made
    when they are asked for; only the kept indices of each dimension are stored.

    Args:
        shapes: Name -> shape before pruning.
        by_dim: Name -> dimension -> indices kept along it, for the dimensions that lost any.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], by_dim: Mapping[str, Mapping[int, torch.Tensor]]) -> None:
        self.shapes = dict(shapes)
        self.by_dim = dict(by_dim)

    def __getitem__(self, name: str) -> torch.Tensor:
        shape = self.shapes[name]
        flat = torch.zeros((), dtype=torch.int64)
        stride = 1
        for dim in reversed(range(len(shape))):
            indices = self.by_dim.get(name, {}).get(dim)
            if indices is None:
                indices = torch.arange(shape[dim])
            flat = flat + (indices * stride).view([-1, *[1] * (len(shape) - 1 - dim)])
            stride *= shape[dim]
        return flat

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def all_indices(model: nn.Module) -> KeptIndices:
    """Return the kept indices of a network that lost nothing."""
    return KeptIndices({name: tuple(tensor.shape) for name, tensor in named_tensors(model)}, {})


def masked_copy(
    model: nn.Module,
    kept_indices: KeptIndices,
    removed_blocks: Collection[Block] = (),
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Copy a network with the elements that pruning removed set to zero, its shape unchanged.

    The copy must give the pruned network's output. It shares the tensors that lost nothing, so it is only there to
    compute with.

    Args:
        model: The network before pruning.
        removed_blocks: Blocks that the result lacks.
        dtype: What float tensors are cast to; ``None`` leaves them.
    """
    tensors = {name: tensor for name, tensor in shareable_tensors(model, dtype).items() if name in kept_indices}
    return weight_sharing_copy(model, tensors | _masked_tensors(tensors, kept_indices), removed_blocks)


def _masked_tensors(tensors: Mapping[str, torch.Tensor], kept_indices: KeptIndices) -> dict[str, torch.Tensor]:
    """Copy the tensors that pruning removed elements from, with zeros in the place of these."""
    found = {}
    for name, tensor in tensors.items():
        # A direction of length 0 is none, so a lost row keeps its direction; the row's length, now 0, says it all.
        rows_stay = name.endswith(_DIRECTIONS)
        kept = {dim: keep for dim, keep in kept_indices.by_dim.get(name, {}).items() if dim or not rows_stay}
        if kept:
            found[name] = _zeroed_along(tensor.detach().clone(), kept)
    return found


def _zeroed_along(tensor: torch.Tensor, kept: Mapping[int, torch.Tensor]) -> torch.Tensor:
    for dim, keep in kept.items():
        lost = torch.ones(tensor.shape[dim], dtype=torch.bool)
        lost[keep] = False
        tensor.index_fill_(dim, lost.nonzero().flatten().to(tensor.device), 0)
    return tensor
