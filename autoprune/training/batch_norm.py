"""Estimating batch norm's running statistics anew, after pruning has changed what flows through the network."""

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.tasks.forward import call_model, to_device
from autoprune.tasks.modes import eval_mode
from autoprune.tasks.task import Split


@torch.no_grad()
def recalibrate_batch_norm(
    model: nn.Module,
    split: Split,
    device: torch.device | str = "cpu",
    n_examples: int = 1024,
    batch_size: int = 128,
    seed: int = 0,
) -> None:
    """Replace the running mean and variance of every batch norm by their average over batches of ``split``.

    All other modules run in evaluation mode, so that dropout does not inflate the variance (unlike
    ``torch.optim.swa_utils.update_bn``, which takes tensors only). A network without running statistics is left alone.

    Args:
        model: On ``device``. Its weights, momenta and its modules' modes are the same afterwards.
        split: The training split.
        n_examples: Examples to draw without replacement; all of the split if it has fewer.
        batch_size: Largest batch; the examples are divided evenly, for all batches count the same.
        seed: Decides which examples are drawn.

    Source:
        Adaptive batch normalization: Li et al. 2020 (EagleEye), https://arxiv.org/abs/2007.02491.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:n_examples]
    momenta = [norm.momentum for norm in norms]
    with eval_mode(model):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            for indices in order.tensor_split(math.ceil(len(order) / batch_size)):
                call_model(model, to_device(split.batch(indices)[0], device))
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
