"""Where every element of a pruned network comes from, and the masked network that it must equal."""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import nn

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

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and buffer under every name it goes by, in module order."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


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
    clone = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in named_tensors(clone):
            if isinstance(provenance, Provenance) and name in provenance and name not in provenance.kept:
                continue
            lost = torch.ones(tensor.numel(), dtype=torch.bool, device=tensor.device)
            if name in provenance:
                lost[provenance[name].flatten().to(tensor.device)] = False
            lost = lost.view(tensor.shape)
            if name.endswith(_DIRECTIONS):
                # A direction of length 0 is none; the row's length, which becomes 0, says it all.
                lost &= ~lost.flatten(1).all(1).view([-1, *[1] * (tensor.dim() - 1)])
            if lost.any():
                tensor.masked_fill_(lost, 0)
    return clone
