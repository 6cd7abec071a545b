"""What a network's own training leaves as it is: frozen parameters, and batch norms whose statistics stay."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.network.modes import train_mode


def is_frozen(tensor: Any) -> bool:
    """Whether it is a parameter without ``requires_grad``."""
    return isinstance(tensor, nn.Parameter) and not tensor.requires_grad


def unfreeze(model: nn.Module) -> nn.Module:
    """Give every parameter of floats ``requires_grad``, in place; returns the network."""
    for parameter in model.parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(True)
    return model


def tracking_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms that have running statistics, in module order."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def adapting_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms whose running statistics move when the network is trained, in module order.

    The statistics stay where the network's own ``train()`` keeps the norm in evaluation mode, and at a momentum of 0.

    Args:
        model: Its ``train()`` is called; every module is in its own former mode afterwards.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, momentum=0.0)).eval()
        >>> len(adapting_norms(model)), model.training
        (1, False)
    """
    with train_mode(model):
        return [norm for norm in tracking_norms(model) if norm.training and norm.momentum != 0]


def running_statistics(norm: _BatchNorm) -> list[torch.Tensor]:
    """Return a norm's running mean and variance and its count of batches: the buffers that it has of them."""
    buffers = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    return [buffer for buffer in buffers if buffer is not None]
