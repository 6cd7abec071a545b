"""How much each channel of a group matters: one score a channel, higher is more important."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from autoprune.errors import PruningError
from autoprune.pruning.atoms import ChannelGroup
from autoprune.pruning.criteria import check_criterion, needs_data
from autoprune.tasks.forward import call_model, to_device
from autoprune.tasks.modes import eval_mode
from autoprune.tasks.task import Inputs, Loss

Calibration = Callable[[], Iterable[tuple[Inputs, torch.Tensor]]]
"""Gives calibration batches, the same ones at every call."""

Place = tuple[str, int]
"""Name of a parameter or buffer, and one of its dimensions."""

PlaceScores = Callable[[Place], torch.Tensor | None]
"""Scores the indices of a dimension, shape ``(size,)``; ``None`` skips it."""


def channel_scores(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    criterion: str,
    *,
    calibration: Calibration | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Score the channels of groups; scores compare within a group only.

    A group that holds nothing that the criterion looks at (no batch norm for ``bn_scale``, no layer behind it for
    ``activation``) is scored by ``l2``.

    - ``l1``, ``l2``: mean over the group's layers, norms included, of the channel's summed absolute or squared
      weights.
    - ``bn_scale``: absolute batch-norm scale (Liu et al. 2017, arXiv 1708.06519).
    - ``taylor``: mean over layers of the summed ``|weight * gradient|`` (Molchanov et al. 2019, arXiv 1906.10771).
    - ``fpgm``: sum of the distances to the layer's other filters (He et al. 2019, arXiv 1811.00250).
    - ``lamp``: squared weights over those of all channels of the layer that are no smaller (Lee et al. 2021, arXiv
      2010.07611), here of channels instead of single weights, mean over layers.
    - ``activation``: mean absolute activation that the layers behind the group receive.
    - ``apoz``: share of these activations that are not zero (Hu et al. 2016, arXiv 1607.03250).
    - ``random``: uniform, from the seed.

    Args:
        model: Left as it was, gradients included.
        groups: Of an analysis of this network.
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
    if criterion == "random":
        generator = torch.Generator().manual_seed(seed)
        return {group.name: torch.rand(group.width, generator=generator, dtype=torch.float64) for group in groups}
    scorer = _scorer(model, criterion, calibration, loss)
    l2 = _magnitude(model, 2)
    return {group.name: _checked(group, scorer(group), l2) for group in groups}


Scorer = Callable[[ChannelGroup], torch.Tensor | None]
"""Scores a group's channels; ``None`` where the group holds nothing that the criterion looks at."""


def _scorer(model: nn.Module, criterion: str, calibration: Calibration | None, loss: Loss | None) -> Scorer:
    weights = _weights(model)
    if criterion in ("activation", "apoz") and calibration is not None:
        means = _mean_inputs(model, calibration, torch.abs if criterion == "activation" else _is_nonzero)
        return lambda group: _mean_over(group, group.consumers, lambda place: _received(model, means, place))
    if criterion == "taylor" and calibration is not None and loss is not None:
        products = _weight_times_gradient(model, calibration, loss)
        return lambda group: _mean_over(group, group.members, lambda place: _sums(products, place, 1))
    if criterion == "bn_scale":
        scales = {name: weight for name, weight in weights.items() if isinstance(_owner(model, name), _NormBase)}
        return lambda group: _mean_over(group, group.members, lambda place: _sums(scales, place, 1))
    if criterion == "fpgm":
        return lambda group: _mean_over(group, _makers(group), lambda place: _distances(weights, place))
    if criterion == "lamp":
        return lambda group: _mean_over(group, group.members, lambda place: _lamp(weights, place))
    return _magnitude(model, 1 if criterion == "l1" else 2)


def _magnitude(model: nn.Module, p: int) -> Scorer:
    weights = _weights(model)
    return lambda group: _mean_over(group, group.members, lambda place: _sums(weights, place, p))


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that scale activations: all but biases."""
    return {name: p.detach() for name, p in model.named_parameters() if not name.endswith("bias")}


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _makers(group: ChannelGroup) -> list[Place]:
    return [place for place in group.members if place not in group.consumers]


def _checked(group: ChannelGroup, scores: torch.Tensor | None, l2: Scorer) -> torch.Tensor:
    found = scores if scores is not None and bool(scores.isfinite().all()) else l2(group)
    if found is None or not bool(found.isfinite().all()):
        raise PruningError(f"the importance of {group.name}'s channels is not finite. Check the network for NaN.")
    return found


def _mean_over(group: ChannelGroup, places: Iterable[Place], score: PlaceScores) -> torch.Tensor | None:
    """Mean over places of a score that each gives its indices; of a channel's several indices, their mean counts."""
    found: list[torch.Tensor] = []
    for place in places:
        scores = score(place)
        if scores is not None:
            indices = torch.from_numpy(group.members[place])
            found.append(scores.detach().double().cpu()[indices].mean(1))
    return torch.stack(found).mean(0) if found else None


def _rows(weights: Mapping[str, torch.Tensor], place: Place) -> torch.Tensor | None:
    """A weight's entries, one row an index of the dimension."""
    name, dim = place
    return weights[name].double().movedim(dim, 0).flatten(1) if name in weights and weights[name].dim() > 1 else None


def _sums(weights: Mapping[str, torch.Tensor], place: Place, p: int) -> torch.Tensor | None:
    name, dim = place
    if name not in weights:
        return None
    return weights[name].double().movedim(dim, 0).reshape(weights[name].shape[dim], -1).abs().pow(p).sum(1)


def _distances(weights: Mapping[str, torch.Tensor], place: Place) -> torch.Tensor | None:
    rows = _rows(weights, place)
    return None if rows is None else torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(1)


def _lamp(weights: Mapping[str, torch.Tensor], place: Place) -> torch.Tensor | None:
    rows = _rows(weights, place)
    if rows is None:
        return None
    squared = rows.square().sum(1)
    ordered, order = squared.sort(stable=True)
    no_smaller = ordered.flip(0).cumsum(0).flip(0)
    return torch.zeros_like(squared).scatter(0, order, ordered / no_smaller.clamp_min(torch.finfo(torch.float64).tiny))


def _received(model: nn.Module, means: Mapping[str, torch.Tensor], place: Place) -> torch.Tensor | None:
    """Mean statistic of what each index of a layer's input dimension receives."""
    name, dim = place
    received = means.get(name.rpartition(".")[0])
    size = model.get_parameter(name).shape[dim] if name in dict(model.named_parameters()) else 0
    if received is None or not size or len(received) % size:
        return None
    return received.view(-1, size).mean(0)  # the groups of a grouped convolution share their weight's input dimension


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
) -> dict[str, torch.Tensor]:
    """Module name -> mean of a statistic over all that reaches it, one value an input channel, in evaluation mode."""
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def hook_for(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
            inputs = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor) and x.is_floating_point()]
            if not inputs or not inputs[0].dim():
                return
            channel_dim = -1 - len(module.kernel_size) if isinstance(module, _ConvNd) else -1
            by_channel = inputs[0].detach().movedim(channel_dim, 0).flatten(1)
            total = statistic(by_channel).double().sum(1)
            sums[name] = sums[name] + total if name in sums else total
            counts[name] = counts.get(name, 0) + by_channel.shape[1]

        return hook

    layers = [(name, m) for name, m in model.named_modules() if getattr(m, "weight", None) is not None]
    hooks = [layer.register_forward_pre_hook(hook_for(name), with_kwargs=True) for name, layer in layers]
    try:
        with torch.no_grad(), eval_mode(model):
            for inputs, _ in _batches(model, calibration):
                call_model(model, inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def _weight_times_gradient(model: nn.Module, calibration: Calibration, loss: Loss) -> dict[str, torch.Tensor]:
    """Weight x gradient of the loss summed over the calibration batches, for convolutions and linear layers."""
    kept = {name: parameter.grad for name, parameter in model.named_parameters()}
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    model.zero_grad(set_to_none=True)
    try:
        with torch.enable_grad(), eval_mode(model):
            for inputs, targets in _batches(model, calibration):
                torch.autograd.backward(loss(call_model(model, inputs), targets))
        return {
            name: parameter.detach() * (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
            for name, parameter in model.named_parameters()
            if parameter.dim() > 1
        }
    finally:
        for name, parameter in model.named_parameters():
            parameter.grad = kept[name]
        for parameter in frozen:
            parameter.requires_grad_(False)
