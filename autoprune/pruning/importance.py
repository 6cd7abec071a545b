"""How much each channel of a group matters: one score a channel, higher is more important."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.nn.modules.conv import _ConvNd

from autoprune.errors import PruningError
from autoprune.pruning.criteria import check_criterion, needs_data
from autoprune.pruning.graph import ChannelGraph, output_dim
from autoprune.tasks.forward import call_model, to_device
from autoprune.tasks.task import Inputs, Loss

Calibration = Callable[[], Iterable[tuple[Inputs, torch.Tensor]]]
"""Gives calibration batches, the same ones at every call."""

Scorer = Callable[[Any], torch.Tensor | None]
"""Scores the channels of one of Torch-Pruning's groups; ``None`` where the group holds nothing that it looks at."""


def channel_scores(
    graph: ChannelGraph,
    roots: Mapping[str, str],
    criterion: str,
    *,
    calibration: Calibration | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Score the channels of groups; scores compare within a group only.

    A group that holds nothing that the criterion looks at (no batch norm for ``bn_scale``, no layer behind it for
    ``activation``) is scored by ``l2``.

    - ``l1``, ``l2``: mean over the group's layers of the channel's summed absolute or squared weights.
    - ``bn_scale``: absolute batch-norm scale (Liu et al. 2017, arXiv 1708.06519).
    - ``taylor``: mean over layers of the summed ``|weight * gradient|`` (Molchanov et al. 2019, arXiv 1906.10771).
    - ``fpgm``: sum of the distances to the layer's other filters (He et al. 2019, arXiv 1811.00250).
    - ``lamp``: squared weights over those of all channels of the layer that are no smaller (Lee et al. 2021, arXiv
      2010.07611), here of channels instead of single weights, mean over layers.
    - ``activation``: mean absolute activation that the layers behind the group receive.
    - ``apoz``: share of these activations that are not zero (Hu et al. 2016, arXiv 1607.03250).
    - ``random``: uniform, from the seed.

    Args:
        graph: Left as it was, gradients included.
        roots: Group name -> layer at the group's root.
        calibration: Batches for the criteria that need data.
        loss: Loss for ``taylor``.

    Returns:
        Group name -> scores, shape ``(n_channels,)``, float64 on the CPU.

    Raises:
        PruningError: If the criterion is unknown or lacks the data it needs, or scores are not finite.
    """
    check_criterion(criterion)
    if needs_data(criterion) and (calibration is None or (criterion == "taylor" and loss is None)):
        what = "calibration batches and a loss" if criterion == "taylor" else "calibration batches"
        raise PruningError(f"criterion '{criterion}' needs {what}, got none. Pass them, or choose l2.")
    groups = {name: graph.group(root) for name, root in roots.items()}
    if criterion == "random":
        generator = torch.Generator().manual_seed(seed)
        return {
            name: torch.rand(_width(group), generator=generator, dtype=torch.float64) for name, group in groups.items()
        }
    with _scorer(graph, criterion, calibration, loss) as scorer:
        scores = {name: scorer(group) for name, group in groups.items()}
    l2 = _magnitude(2)
    return {name: _checked(name, group, scores[name], l2) for name, group in groups.items()}


@contextmanager
def _scorer(
    graph: ChannelGraph, criterion: str, calibration: Calibration | None, loss: Loss | None
) -> Iterator[Scorer]:
    if criterion in ("activation", "apoz") and calibration is not None:
        statistic = torch.abs if criterion == "activation" else _is_nonzero
        means = _mean_inputs(graph.model, calibration, statistic)
        yield lambda group: _mean_over_layers(group, lambda layer, *_: means.get(layer), consumers=True)
    elif criterion == "taylor" and calibration is not None and loss is not None:
        _accumulate_gradients(graph.model, calibration, loss)
        yield tp.importance.GroupTaylorImportance(group_reduction="mean", normalizer=None)
        graph.model.zero_grad(set_to_none=True)
    elif criterion == "bn_scale":
        yield tp.importance.BNScaleImportance(group_reduction="mean", normalizer=None)
    elif criterion == "fpgm":
        yield lambda group: _mean_over_layers(group, _distances, producers=True)
    elif criterion == "lamp":
        yield lambda group: _mean_over_layers(group, _lamp, producers=True, consumers=True)
    else:
        yield _magnitude(1 if criterion == "l1" else 2)


def _magnitude(p: int) -> Scorer:
    scorer: Scorer = tp.importance.GroupMagnitudeImportance(p=p, group_reduction="mean", normalizer=None)
    return scorer


def _width(group: Any) -> int:
    return len(group[0].idxs)


def _checked(name: str, group: Any, scores: torch.Tensor | None, l2: Scorer) -> torch.Tensor:
    for found in (scores, l2(group)):
        if found is not None and found.shape == (_width(group),) and bool(found.isfinite().all()):
            return found.detach().double().cpu()
    raise PruningError(f"the importance of {name}'s channels is not finite. Check the network's weights for NaN.")


LayerScores = Callable[[nn.Module, int, int], torch.Tensor | None]
"""(layer, dimension of its weight that runs over the channels, channels) -> scores; ``None`` skips the layer."""


def _mean_over_layers(
    group: Any, score: LayerScores, *, producers: bool = False, consumers: bool = False
) -> torch.Tensor | None:
    """Mean over a group's convolutions and linear layers of a score that each gives its channels.

    Where several of a layer's channels belong to one of the group's, as behind a flatten, their mean counts.
    """
    out_handlers = (tp.prune_conv_out_channels, tp.prune_linear_out_channels) if producers else ()
    in_handlers = (tp.prune_conv_in_channels, tp.prune_linear_in_channels) if consumers else ()
    layers: list[torch.Tensor] = []
    for item in group:
        layer, handler = item.dep.layer, item.dep.handler
        if handler not in (*out_handlers, *in_handlers) or None in item.root_idxs:
            continue
        dim = output_dim(layer) if handler in out_handlers else 1 - output_dim(layer)
        n_channels = layer.weight.shape[dim] * (
            layer.groups if isinstance(layer, _ConvNd) and handler in in_handlers else 1
        )
        scores = score(layer, dim, n_channels)
        if scores is None:
            continue
        picked = scores.detach().double().cpu()[torch.tensor(item.idxs)]
        root = torch.tensor(item.root_idxs)
        mean = torch.zeros(_width(group), dtype=torch.float64).scatter_reduce(
            0, root, picked, "mean", include_self=False
        )
        layers.append(mean)
    return torch.stack(layers).mean(0) if layers else None


def _rows(layer: nn.Module, dim: int, n_channels: int) -> torch.Tensor:
    """A layer's weights, one row a channel; the channels of a grouped convolution's input share rows."""
    weight = layer.get_parameter("weight").detach()
    rows = weight.transpose(0, dim).flatten(1)
    return rows.repeat(n_channels // len(rows), 1)


def _distances(layer: nn.Module, dim: int, n_channels: int) -> torch.Tensor:
    rows = _rows(layer, dim, n_channels).double()
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1)


def _lamp(layer: nn.Module, dim: int, n_channels: int) -> torch.Tensor:
    squared = _rows(layer, dim, n_channels).double().square().sum(1)
    ordered, order = squared.sort(stable=True)
    no_smaller = ordered.flip(0).cumsum(0).flip(0)
    return torch.zeros_like(squared).scatter(0, order, ordered / no_smaller.clamp_min(torch.finfo(torch.float64).tiny))


def _is_nonzero(activations: torch.Tensor) -> torch.Tensor:
    return activations != 0


def _batches(model: nn.Module, calibration: Calibration) -> Iterator[tuple[Inputs, torch.Tensor]]:
    device = next(model.parameters()).device
    empty = True
    for inputs, targets in calibration():
        empty = False
        yield to_device(inputs, device), targets.to(device)
    if empty:
        raise PruningError("there must be at least one calibration batch, got none. Enlarge the training split.")


def _mean_inputs(
    model: nn.Module, calibration: Calibration, statistic: Callable[[torch.Tensor], torch.Tensor]
) -> dict[nn.Module, torch.Tensor]:
    """Mean of a statistic over all that reaches each convolution and linear layer, one value an input channel."""
    sums: dict[nn.Module, torch.Tensor] = {}
    counts: dict[nn.Module, int] = {}

    def hook(module: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
        activations = (args[0] if args else kwargs["input"]).detach()
        channel_dim = -1 - len(module.kernel_size) if isinstance(module, _ConvNd) else -1
        by_channel = activations.movedim(channel_dim, 0).flatten(1)
        total = statistic(by_channel).double().sum(1)
        sums[module] = sums[module] + total if module in sums else total
        counts[module] = counts.get(module, 0) + by_channel.shape[1]

    layers = [module for module in model.modules() if isinstance(module, _ConvNd | nn.Linear)]
    hooks = [layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad():
            for inputs, _ in _batches(model, calibration):
                call_model(model, inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return {module: total / counts[module] for module, total in sums.items()}


def _accumulate_gradients(model: nn.Module, calibration: Calibration, loss: Loss) -> None:
    model.zero_grad(set_to_none=True)
    with torch.enable_grad():
        for inputs, targets in _batches(model, calibration):
            torch.autograd.backward(loss(call_model(model, inputs), targets))
    for parameter in model.parameters():
        if parameter.grad is None and parameter.is_floating_point():
            parameter.grad = torch.zeros_like(parameter)
