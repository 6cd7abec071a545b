"""Criteria that look at what the layers behind a group receive."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from autoprune.network.call import call_model
from autoprune.network.modes import eval_mode
from autoprune.pruning.channels.importance._base import Scorer, Subject, mean_over
from autoprune.pruning.graph import TensorDim


def activation(subject: Subject) -> Scorer:
    """Score by the mean absolute activation that the layers behind the group receive."""
    return _received(subject, torch.abs)


def apoz(subject: Subject) -> Scorer:
    """Score by the share of these activations that are not zero (Hu et al. 2016, arXiv 1607.03250)."""
    return _received(subject, lambda activations: activations != 0)


def _received(subject: Subject, statistic: Callable[[torch.Tensor], torch.Tensor]) -> Scorer:
    means = _mean_inputs(subject, statistic)
    parameters = dict(subject.model.named_parameters())

    def score(tensor_dim: TensorDim) -> torch.Tensor | None:
        name, dim = tensor_dim
        received = means.get(name.rpartition(".")[0])
        size = parameters[name].shape[dim] if name in parameters else 0
        if received is None or not size or len(received) % size:
            return None
        return received.view(-1, size).mean(0)  # the groups of a grouped convolution share their input dimension

    return lambda group: mean_over(group, group.consumers, score)


def _mean_inputs(subject: Subject, statistic: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    """Average a statistic of each module's inputs, one value an input channel, in evaluation mode."""
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

    layers = [(name, m) for name, m in subject.model.named_modules() if getattr(m, "weight", None) is not None]
    hooks = [layer.register_forward_pre_hook(hook_for(name), with_kwargs=True) for name, layer in layers]
    try:
        with torch.no_grad(), eval_mode(subject.model):
            for inputs, _ in subject.batches():
                call_model(subject.model, inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return {name: total / counts[name] for name, total in sums.items()}
