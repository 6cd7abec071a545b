"""Where every element of a pruned network comes from, and the masked network that it must equal."""

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import nn

from autoprune.pruning.copies import lent, named_tensors, replica
from autoprune.pruning.plan import Block

_DIRECTIONS = (".original1", "weight_v")
"""Ends of the names of weights that weight norm scales to a length of their own."""


class Provenance(Mapping[str, torch.Tensor]):
    """Name of a parameter or buffer -> flat indices into the uncut tensor, ``int64`` on the CPU, in the cut shape.

    Only the kept indices of each dimension are stored; a tensor's flat indices are as large as the tensor itself and
    are made when they are asked for.

    Args:
        shapes: Name -> shape before the cut.
        kept: Name -> dimension -> indices kept along it, for the dimensions that lost any.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], kept: Mapping[str, Mapping[int, torch.Tensor]]) -> None:
        self.shapes = dict(shapes)
        self.kept = dict(kept)

    def __getitem__(self, name: str) -> torch.Tensor:
        shape = self.shapes[name]
        flat = torch.zeros((), dtype=torch.int64)
        stride = 1
        for dim in reversed(range(len(shape))):
            indices = self.kept.get(name, {}).get(dim)
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


def untouched(model: nn.Module) -> Provenance:
    """The provenance of a network that lost nothing."""
    return Provenance({name: tuple(tensor.shape) for name, tensor in named_tensors(model)}, {})


def masked(model: nn.Module, provenance: Mapping[str, torch.Tensor]) -> nn.Module:
    """Copy a network with the elements that pruning took set to zero, its shape unchanged.

    Args:
        model: The network that was pruned, before it was.
        provenance: Name -> flat indices of the surviving elements. A tensor without an entry (it stood in a removed
            block) becomes zero as a whole.

    Returns:
        A copy that must give the pruned network's output.
    """
    return replica(model, _masked_tensors(dict(named_tensors(model)), provenance))


def masked_replica(
    model: nn.Module,
    provenance: Mapping[str, torch.Tensor],
    removed_blocks: Collection[Block] = (),
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """As :func:`masked`, but only to compute with: what lost nothing is the network's own.

    Args:
        removed_blocks: Blocks that the result lacks.
        dtype: What float tensors are cast to; ``None`` leaves them.
    """
    tensors = {name: tensor for name, tensor in lent(model, dtype).items() if name in provenance}
    return replica(model, tensors | _masked_tensors(tensors, provenance), removed_blocks)


def _masked_tensors(
    tensors: Mapping[str, torch.Tensor], provenance: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Copies with zeros in the place of what pruning took, of those tensors that it took something of.

    Args:
        tensors: Of the network before it was pruned, by name.
        provenance: As :func:`masked` takes it.
    """
    found = {}
    for name, tensor in tensors.items():
        rows_stay = name.endswith(_DIRECTIONS)  # a direction of length 0 is none; the row's length, now 0, says it all
        if isinstance(provenance, Provenance) and name in provenance:
            kept = {dim: keep for dim, keep in provenance.kept.get(name, {}).items() if dim or not rows_stay}
            if kept:
                found[name] = _zeroed_along(tensor.detach().clone(), kept)
            continue
        lost = torch.ones(tensor.numel(), dtype=torch.bool, device=tensor.device)
        if name in provenance:
            lost[provenance[name].flatten().to(tensor.device)] = False
        lost = lost.view(tensor.shape)
        if rows_stay:
            lost &= ~lost.flatten(1).all(1).view([-1, *[1] * (tensor.dim() - 1)])
        if lost.any():
            found[name] = tensor.detach().masked_fill(lost, 0)
    return found


def _zeroed_along(tensor: torch.Tensor, kept: Mapping[int, torch.Tensor]) -> torch.Tensor:
    for dim, keep in kept.items():
        lost = torch.ones(tensor.shape[dim], dtype=torch.bool)
        lost[keep] = False
        tensor.index_fill_(dim, lost.nonzero().flatten().to(tensor.device), 0)
    return tensor
