"""Criteria that look at the weights alone."""

from collections.abc import Mapping

import torch
from torch.nn.modules.batchnorm import _NormBase

from autoprune.pruning.channels.importance._base import Scorer, Subject, mean_over, summed
from autoprune.pruning.graph import TensorDim


def l1(subject: Subject) -> Scorer:
    """Score by the mean over the group's layers, norms included, of the channel's summed absolute weights."""
    weights = subject.weights()
    return lambda group: mean_over(group, group.members, lambda tensor_dim: summed(weights, tensor_dim, 1))


def l2(subject: Subject) -> Scorer:
    """Score by the mean over the group's layers, norms included, of the channel's summed squared weights."""
    weights = subject.weights()
    return lambda group: mean_over(group, group.members, lambda tensor_dim: summed(weights, tensor_dim, 2))


def bn_scale(subject: Subject) -> Scorer:
    """Score by the absolute batch-norm scale (Liu et al. 2017, arXiv 1708.06519)."""
    norms = {name for name, module in subject.model.named_modules() if isinstance(module, _NormBase)}
    scales = {name: weight for name, weight in subject.weights().items() if name.rpartition(".")[0] in norms}
    return lambda group: mean_over(group, group.members, lambda tensor_dim: summed(scales, tensor_dim, 1))


def fpgm(subject: Subject) -> Scorer:
    """Score by the summed distances to the layer's other filters (He et al. 2019, arXiv 1811.00250)."""
    weights = subject.weights()

    def distances(tensor_dim: TensorDim) -> torch.Tensor | None:
        rows = _rows(weights, tensor_dim)
        return None if rows is None else torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1)

    return lambda group: mean_over(group, [p for p in group.members if p not in group.consumers], distances)


def lamp(subject: Subject) -> Scorer:
    """Score by squared weights over those of the layer's channels that are no smaller (Lee et al., arXiv 2010.07611).

    Of channels, where the paper has single weights; mean over layers.
    """
    weights = subject.weights()

    def scaled(tensor_dim: TensorDim) -> torch.Tensor | None:
        rows = _rows(weights, tensor_dim)
        if rows is None:
            return None
        squared = rows.square().sum(1)
        ordered, order = squared.sort(stable=True)
        no_smaller = ordered.flip(0).cumsum(0).flip(0).clamp_min(torch.finfo(torch.float64).tiny)
        return torch.zeros_like(squared).scatter(0, order, ordered / no_smaller)

    return lambda group: mean_over(group, group.members, scaled)


def random(subject: Subject) -> Scorer:
    """Score uniformly at random from the seed; the groups are scored in their order."""
    generator, groups = torch.Generator().manual_seed(subject.seed), subject.groups
    drawn = {group.name: torch.rand(group.width, generator=generator, dtype=torch.float64) for group in groups}
    return lambda group: drawn[group.name]


def _rows(weights: Mapping[str, torch.Tensor], tensor_dim: TensorDim) -> torch.Tensor | None:
    """Return a weight's entries, one row an index of the dimension."""
    name, dim = tensor_dim
    return weights[name].double().movedim(dim, 0).flatten(1) if name in weights and weights[name].dim() > 1 else None
