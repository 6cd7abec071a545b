"""Recalibrate batch norm: pruning changes the activations, so its running statistics are estimated anew."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.network.call import Inputs
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
) -> None:
    """Replace the running mean and variance of every batch norm by their average over batches of ``split``.

    All other modules run in evaluation mode, so that dropout does not inflate the variance (unlike
    ``torch.optim.swa_utils.update_bn``, which takes tensors only). A network without running statistics is left alone.

    Args:
        model: On ``device``. Its weights, momenta and its modules' modes are the same afterwards.
        split: The training split.
        n_examples: Examples to draw without replacement; all of the split if it has fewer.
        batch_size: Largest batch; the examples are divided evenly, for all batches count the same. Where the device's
            memory is not enough, all is begun anew with half of it.
        seed: Decides which examples are drawn.

    Raises:
        OutOfDeviceMemory: If a single example is too much for the device.

    Source:
        Adaptive batch normalization: Li et al. 2020 (EagleEye), https://arxiv.org/abs/2007.02491.
    """
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:n_examples]

    def attempt(size: int) -> None:
        parts = order.tensor_split(math.ceil(len(order) / size))
        recalibrate_on_batches(model, (split.batch(indices)[0] for indices in parts), device, precision)

    find_executable_batch_size(attempt, min(batch_size, len(order)), device, "recalibrating batch norm")


@torch.no_grad()
def recalibrate_on_batches(
    model: nn.Module,
    batches: Iterable[Inputs],
    device: torch.device | str = "cpu",
    precision: Precision = FLOAT32,
) -> None:
    """Recalibrate batch norm as :func:`recalibrate_batch_norm` does, on given batches of equal weight."""
    norms = _norms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with eval_mode(model):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            for inputs in batches:
                precision.forward(model, inputs, device)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def has_running_statistics(model: nn.Module) -> bool:
    """Whether the network has a batch norm that could be recalibrated."""
    return bool(_norms(model))


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
