"""Borrowing a network in another mode and giving it back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the network in evaluation mode; on leaving, every module is in its own former mode.

    The network's own ``train()`` is called both times: it may do more, such as merge weights.
    """
    with _in_mode(model, training=False):
        yield


@contextmanager
def train_mode(model: nn.Module) -> Iterator[None]:
    """Put the network in training mode, as :func:`eval_mode` puts it in evaluation mode."""
    with _in_mode(model, training=True):
        yield


@contextmanager
def _in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    try:
        model.train() if training else model.eval()
        yield
    finally:
        model.train(before[model])
        for module, was_training in before.items():
            module.training = was_training
