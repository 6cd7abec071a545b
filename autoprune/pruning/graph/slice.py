"""Removing channels from a network: its tensors are sliced, and the sizes that its code states follow."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from autoprune.errors import PruningError
from autoprune.pruning.copies import named_tensors
from autoprune.pruning.graph.analysis import Analysis
from autoprune.pruning.graph.attributes import follow_sizes
from autoprune.pruning.graph.values import Indices
from autoprune.pruning.kept_indices import KeptIndices


def remove_channels(model: nn.Module, analysis: Analysis, removed: Mapping[str, Sequence[int]]) -> KeptIndices:
    """Remove channels from a network in place.

    Values, dtypes, devices, ``requires_grad`` and the sharing of tied tensors are as before, but for what was removed.

    Args:
        analysis: Of this network.
        removed: Group name -> channels to remove, not all of them.

    Returns:
        Name of a parameter or buffer -> flat indices into the tensor before, ``int64`` on the CPU, in the new shape.

    Raises:
        PruningError: If a group is unknown, has no such channel or would lose all.
    """
    gone = {name: set(map(int, channels)) for name, channels in removed.items() if len(channels)}
    _check(analysis, gone)
    lost: defaultdict[str, defaultdict[int, list[Indices]]] = defaultdict(lambda: defaultdict(list))
    for group, channels in gone.items():
        for (name, dim), indices in analysis.group(group).members.items():
            lost[name][dim].append(indices[sorted(channels)].reshape(-1))
    kept = {
        name: {dim: _kept(analysis.shapes[name][dim], parts) for dim, parts in dims.items()}
        for name, dims in lost.items()
    }
    shapes: dict[str, tuple[int, ...]] = {}
    kept_by_name: dict[str, dict[int, torch.Tensor]] = {}
    made: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, tensor in list(named_tensors(model)):
            first = analysis.same[name]
            shapes[name] = tuple(tensor.shape)
            if first not in kept:
                continue
            kept_by_name[name] = kept[first]
            if first not in made:
                made[first] = _sliced(tensor, kept[first])
            owner, _, leaf = name.rpartition(".")
            _replace(model.get_submodule(owner), leaf, made[first])
    follow_sizes(model, analysis.sizes, gone)
    return KeptIndices(shapes, kept_by_name)


def _check(analysis: Analysis, gone: Mapping[str, set[int]]) -> None:
    widths = {group.name: group.width for group in analysis.groups}
    for name, channels in gone.items():
        if name not in widths:
            raise PruningError(f"unknown group '{name}'. Known: {', '.join(widths) or 'none'}.")
        if not channels <= set(range(widths[name])):
            raise PruningError(f"group '{name}' has channels 0 to {widths[name] - 1}, can't remove {max(channels)}.")
        if len(channels) == widths[name]:
            raise PruningError(f"group '{name}' must keep at least 1 of its {widths[name]} channels.")
    for group in analysis.groups:
        n_kept = group.width - len(gone.get(group.name, ()))
        if group.name in gone and n_kept % group.multiple:
            raise PruningError(f"group '{group.name}' must keep a multiple of {group.multiple} channels, got {n_kept}.")


def _kept(size: int, parts: list[Indices]) -> torch.Tensor:
    mask = np.ones(size, dtype=bool)
    mask[np.concatenate(parts)] = False
    return torch.from_numpy(np.flatnonzero(mask))


def _sliced(tensor: torch.Tensor, kept: Mapping[int, torch.Tensor]) -> torch.Tensor:
    values = tensor.detach()
    for dim, keep in kept.items():
        values = values.index_select(dim, keep.to(values.device))
    values = values.contiguous()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(values, requires_grad=tensor.requires_grad)
    return values


def _replace(module: nn.Module, leaf: str, tensor: torch.Tensor) -> None:
    if leaf in module._parameters:
        module._parameters[leaf] = tensor  # type: ignore[assignment]
    else:
        module._buffers[leaf] = tensor
