"""The analysis of a pruned network, from that of the dense one: no second propagation, and the same names."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from autoprune.errors import PruningError
from autoprune.pruning.graph.analysis import Analysis
from autoprune.pruning.graph.grouping import DependencyGroup
from autoprune.pruning.graph.products import Product, Run
from autoprune.pruning.graph.sizes import CountedSize
from autoprune.pruning.graph.values import Indices


def narrowed(analysis: Analysis, removed: Mapping[str, Sequence[int]]) -> Analysis:
    """Narrow an analysis to the network after these channels have left.

    Args:
        removed: Group name -> channels, numbered as in ``analysis``.

    Returns:
        An analysis with the same groups; one that has a single channel left can lose no more.
    """
    stays = {}
    for group in analysis.groups:
        mask = np.ones(group.width, dtype=bool)
        mask[list(removed.get(group.name, ()))] = False
        stays[group.name] = mask
    tensor_dims = {tensor_dim for group in analysis.groups for tensor_dim in group.members}
    masks = {(name, dim): np.ones(analysis.shapes[name][dim], dtype=bool) for name, dim in tensor_dims}
    for group in analysis.groups:
        for tensor_dim, indices in group.members.items():
            masks[tensor_dim][indices[~stays[group.name]]] = False
    new_index = {tensor_dim: np.cumsum(mask) - 1 for tensor_dim, mask in masks.items()}
    shapes = {name: list(shape) for name, shape in analysis.shapes.items()}
    for (name, dim), mask in masks.items():
        shapes[name][dim] = int(mask.sum())
    return replace(
        analysis,
        groups=tuple(_narrowed_group(group, stays[group.name], new_index) for group in analysis.groups),
        sizes=tuple(_narrowed_size(size, stays) for size in analysis.sizes),
        shapes={name: tuple(shape) for name, shape in shapes.items()},
        products=tuple(_narrowed_product(product, stays) for product in analysis.products),
        positions={
            name: tuple(_narrowed_runs(runs, stays) for runs in products)
            for name, products in analysis.positions.items()
        },
    )


def at_widths(analysis: Analysis, widths: Mapping[str, int]) -> Analysis:
    """Return the analysis of a network pruned to these widths, whichever channels left.

    Args:
        widths: Group name -> channels that it has; a group not named has all.

    Raises:
        PruningError: If channels of several groups alternate in a dimension, so that it matters which left.
    """
    first, last = {}, {}
    for group in analysis.groups:
        n_gone = group.width - widths.get(group.name, group.width)
        first[group.name] = list(range(n_gone))
        last[group.name] = list(range(group.width - n_gone, group.width))
    result, other = narrowed(analysis, last), narrowed(analysis, first)
    for group, same in zip(result.groups, other.groups, strict=True):
        if any(not np.array_equal(indices, same.members[tensor_dim]) for tensor_dim, indices in group.members.items()):
            raise PruningError(f"group '{group.name}' alternates with others, so its widths don't tell what left")
    return result


def _narrowed_group(
    group: DependencyGroup, stays: Indices, new_index: Mapping[tuple[str, int], Indices]
) -> DependencyGroup:
    members = {tensor_dim: new_index[tensor_dim][indices[stays]] for tensor_dim, indices in group.members.items()}
    return replace(group, width=int(stays.sum()), members=members)


def _narrowed_size(size: CountedSize, stays: Mapping[str, Indices]) -> CountedSize:
    n_lost = 0
    channels = []
    for name, indices in size.channels:
        if name not in stays:
            continue
        kept = stays[name][indices]
        n_lost += int((~kept).sum())
        channels.append((name, (np.cumsum(stays[name]) - 1)[indices[kept]]))
    return replace(size, size=size.size - n_lost, channels=tuple(channels))


def _narrowed_product(product: Product, stays: Mapping[str, Indices]) -> Product:
    return replace(product, runs=_narrowed_runs(product.runs, stays))


def _narrowed_runs(runs: Sequence[Run], stays: Mapping[str, Indices]) -> tuple[Run, ...]:
    n_removed = {name: int((~mask).sum()) for name, mask in stays.items()}
    return tuple(Run(run.size_after(n_removed), run.losses) for run in runs)
