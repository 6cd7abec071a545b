"""Criteria that look at the loss's gradient."""

import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from autoprune.errors import PruningError
from autoprune.network.call import Inputs, call_model
from autoprune.network.modes import eval_mode
from autoprune.pruning.channels.importance._base import Scorer, Subject, mean_over, summed
from autoprune.pruning.graph import DependencyGroup, TensorDim

_MOST_EXAMPLES = 128


def taylor(subject: Subject) -> Scorer:
    """Score by the mean over layers of the summed ``|weight * gradient|`` (Molchanov et al. 2019, arXiv 1906.10771)."""
    with _gradients_free(subject.model):
        for inputs, targets in subject.batches():
            _backward(subject, inputs, targets)
        products = {
            name: parameter.detach() * (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
            for name, parameter in subject.model.named_parameters()
            if parameter.dim() > 1
        }
    return lambda group: mean_over(group, group.members, lambda tensor_dim: summed(products, tensor_dim, 1))


def fisher(subject: Subject) -> Scorer:
    """Score by half the Fisher information of a gate on the channel: its squared gradient, the mean over examples.

    The gate scales what every layer behind the group receives of the channel, so its gradient is the sum of
    ``weight * gradient`` over the channel's weights in these layers; where there are none, over the layers that make
    it. Gradients are those of single examples, exactly, each from a backward pass of its own; of more than 128
    calibration examples, evenly spread ones are looked at.

    Source:
        Theis et al. 2018, arXiv 1801.05787; of coupled layers Liu et al. 2021, arXiv 2108.00708
    """
    totals: dict[str, torch.Tensor] = {}
    examples = _examples(subject)
    with _gradients_free(subject.model):
        parameters = {name: p for name, p in subject.model.named_parameters() if p.dim() > 1}
        for inputs, targets in examples:
            subject.model.zero_grad(set_to_none=True)
            _backward(subject, inputs, targets)
            products: dict[TensorDim, torch.Tensor] = {}
            for group in subject.groups:
                gradient = _gate_gradient(group, parameters, products)
                if gradient is not None:
                    total = totals.setdefault(group.name, torch.zeros(group.width, dtype=torch.float64))
                    total += gradient.square()
    return lambda group: totals[group.name] / (2 * len(examples)) if group.name in totals else None


def _gate_gradient(
    group: DependencyGroup, parameters: dict[str, nn.Parameter], products: dict[TensorDim, torch.Tensor]
) -> torch.Tensor | None:
    """Return the gradient of a gate on each channel, shape ``(n_channels,)``.

    Args:
        products: Sums of ``weight * gradient`` over each index of a dimension, those that are known already.
    """
    readers = [tensor_dim for tensor_dim in group.consumers if tensor_dim[0] in parameters]
    total: torch.Tensor | None = None
    for tensor_dim in readers or [tensor_dim for tensor_dim in group.members if tensor_dim[0] in parameters]:
        name, dim = tensor_dim
        weight = parameters[name]
        if weight.grad is None:
            continue
        if tensor_dim not in products:
            others = [other for other in range(weight.dim()) if other != dim]
            products[tensor_dim] = (weight.detach() * weight.grad).sum(others, dtype=torch.float64).cpu()
        of_channel = products[tensor_dim][torch.from_numpy(group.members[tensor_dim])].sum(1)
        total = of_channel if total is None else total + of_channel
    return total


def _backward(subject: Subject, inputs: Inputs, targets: torch.Tensor) -> None:
    loss = subject.loss(call_model(subject.model, inputs), targets)
    if not loss.requires_grad:
        raise PruningError(
            "taylor and fisher need a gradient, but the loss has no gradient: the network or the loss cuts it off, as "
            "torch.no_grad does. Choose l2."
        )
    torch.autograd.backward(loss)


def _examples(subject: Subject) -> list[tuple[Inputs, torch.Tensor]]:
    """Choose at most ``_MOST_EXAMPLES`` calibration examples, each as a batch of one."""
    singles = [(batch, slice(i, i + 1)) for batch in subject.batches() for i in range(len(batch[1]))]
    chosen = singles[:: -(-len(singles) // _MOST_EXAMPLES)]
    return [tree_map_only(torch.Tensor, operator.itemgetter(one), batch) for batch, one in chosen]


@contextmanager
def _gradients_free(model: nn.Module) -> Iterator[None]:
    """Lend a network in evaluation mode whose every weight collects a gradient; on leaving, it is as before."""
    kept = {name: parameter.grad for name, parameter in model.named_parameters()}
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    model.zero_grad(set_to_none=True)
    try:
        with torch.enable_grad(), eval_mode(model):
            yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.grad = kept[name]
        for parameter in frozen:
            parameter.requires_grad_(False)
