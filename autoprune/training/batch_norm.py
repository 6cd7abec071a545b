"""Recalibrate batch norm: pruning changes the activations, so its running statistics are estimated anew."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from autoprune.network.call import Inputs
from autoprune.network.frozen import adapting_norms, running_statistics, tracking_norms
from autoprune.network.modes import eval_mode
from autoprune.tasks.task import Split
from autoprune.training.memory import find_executable_batch_size
from autoprune.training.precision import FLOAT32, Precision


def recalibrate_batch_norm(
    model: nn.Module,
    split: Split,
    device: torch.device | str = "cpu",
    n_examples: int = 1024,
    batch_size: int = 128,
    seed: int = 0,
    precision: Precision = FLOAT32,
    *,
    keep_frozen: bool = True,
) -> None:
    """Replace the running mean and variance of every batch norm by their average over batches of ``split``.

    All other modules run in evaluation mode, so that dropout does not inflate the variance (unlike
    ``torch.optim.swa_utils.update_bn``, which takes tensors only). A network without running statistics is left alone,
    and so is a norm that the forward pass does not run in training mode.

    Args:
        model: On ``device``. Its weights, momenta and its modules' modes are the same afterwards.
        split: The training split.
        n_examples: Examples to draw without replacement; all of the split if it has fewer.
        batch_size: Largest batch; the examples are divided evenly, for all batches count the same. Where the device's
            memory is not enough, all is begun anew with half of it.
        seed: Decides which examples are drawn.
        keep_frozen: Leave alone the norms whose statistics training does not move
            (:func:`autoprune.network.frozen.adapting_norms`).

    Raises:
        OutOfDeviceMemory: If a single example is too much for the device.

    Source:
        Adaptive batch normalization: Li et al. 2020 (EagleEye), https://arxiv.org/abs/2007.02491.
    """
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:n_examples]

    def attempt(size: int) -> None:
        parts = order.tensor_split(math.ceil(len(order) / size))
        batches = (split.batch(indices)[0] for indices in parts)
        recalibrate_on_batches(model, batches, device, precision, keep_frozen=keep_frozen)

    find_executable_batch_size(attempt, min(batch_size, len(order)), device, "recalibrating batch norm")


@torch.no_grad()
def recalibrate_on_batches(
    model: nn.Module,
    batches: Iterable[Inputs],
    device: torch.device | str = "cpu",
    precision: Precision = FLOAT32,
    *,
    keep_frozen: bool = True,
) -> None:
    """Recalibrate batch norm as :func:`recalibrate_batch_norm` does, on given batches of equal weight."""
    norms = adapting_norms(model) if keep_frozen else tracking_norms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    before = [[buffer.clone() for buffer in running_statistics(norm)] for norm in norms]
    done = False
    with eval_mode(model):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            for inputs in batches:
                precision.forward(model, inputs, device)
            done = True
        finally:
            for norm, momentum, buffers in zip(norms, momenta, before, strict=True):
                norm.momentum = momentum
                if not done or norm.num_batches_tracked == 0:  # its statistics are those of no batch
                    for buffer, values in zip(running_statistics(norm), buffers, strict=True):
                        buffer.copy_(values)


def can_recalibrate(model: nn.Module, *, keep_frozen: bool = True) -> bool:
    """Whether the network has a batch norm that :func:`recalibrate_batch_norm` would change."""
    return bool(adapting_norms(model) if keep_frozen else tracking_norms(model))
