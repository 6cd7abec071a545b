"""Does a task hold together? One forward pass tells before a search is begun."""

import math
import warnings
from typing import Any

import torch
from torch import nn

from autoprune.errors import TaskError
from autoprune.network.call import call_model
from autoprune.network.modes import eval_mode
from autoprune.tasks.check_targets import check_targets, is_built_in, read_examples
from autoprune.tasks.metrics import as_number
from autoprune.tasks.task import Task
from autoprune.trial import DistillationConfig

N_EXAMPLES = 3
"""Examples of each split that are run: not 1 or 2, which a wrong shape might be broadcast over by luck."""


def check_task(task: Task, model: nn.Module) -> None:
    """Run the network on a few training examples and judge them by the loss and the metric.

    Outputs and targets are compared with what the built-in losses and metrics take, the targets of all examples among
    them where they are in memory. The test split is not read.

    Args:
        model: The network, as the task builds it; its mode stays as it is.

    Raises:
        TaskError: If a part doesn't fit the others, or an example can't be read.
    """
    inputs, targets = read_examples(task.data, "train", torch.arange(min(N_EXAMPLES, len(task.data.train))))
    read_examples(task.data, "validation", torch.arange(min(N_EXAMPLES, len(task.data.validation))))
    with torch.no_grad(), eval_mode(model):
        outputs = _run(f"the model, on {len(targets)} training examples,", lambda: call_model(model, inputs))
        check_targets(task, outputs, targets)
        losses = {"task.loss": _run("the loss", lambda: _unbroadcast("task.loss", task.loss, outputs, targets))}
        if task.distillation_loss is not None:
            compare = task.distillation_loss
            distilled = _run(
                "the distillation loss", lambda: compare(outputs, outputs, DistillationConfig().temperature)
            )
            losses["task.distillation_loss"] = distilled
        if is_built_in(task.metric):
            metric = 0.0  # of three examples it may have no value
        else:
            metric = as_number(_run("the metric", lambda: _unbroadcast("task.metric", task.metric, outputs, targets)))
        if task.augment is not None:
            augment, generator = task.augment, torch.Generator().manual_seed(0)
            _run("the augmentation", lambda: augment(inputs, generator))
    for name, loss in losses.items():
        _check_loss(name, loss)
    if not math.isfinite(metric):
        raise TaskError(f"task.metric must be finite, got {metric}.")


def _unbroadcast(what: str, function: Any, outputs: Any, targets: torch.Tensor) -> Any:
    """Call a loss or metric; raises TaskError if it broadcasts outputs over targets of another shape."""
    scores = getattr(outputs, "logits", outputs)
    differs = isinstance(scores, torch.Tensor) and scores.shape != targets.shape and len(targets) > 1
    told = TaskError(
        f"{what} compares every output with every target: outputs of shape {_shape(scores)} are broadcast over targets "
        f"of shape {_shape(targets)}. Give both one shape, in the model or in task.data."
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Using a target size", UserWarning)
        try:
            value = function(outputs, targets)
        except UserWarning as warning:
            if "Using a target size" in str(warning):
                raise told from None
            raise
        if not differs or scores.numel() != targets.numel():
            return value
        try:
            of_one_shape = function(scores.reshape(targets.shape), targets)
            is_same = math.isclose(as_number(value), as_number(of_one_shape), rel_tol=1e-4, abs_tol=1e-8)
        except Exception:  # it brings the outputs into shape itself, and can't do so twice
            return value
    if not is_same:
        raise told
    return value


def _shape(tensor: Any) -> Any:
    return tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__


def _check_loss(name: str, loss: Any) -> None:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or loss.ndim != 0:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise TaskError(f"{name} must return a tensor of shape (), got {got}.")
    if not math.isfinite(loss.item()):
        raise TaskError(f"{name} must be finite on the untrained network, got {loss.item()}.")


def _run(what: str, function: Any) -> Any:
    try:
        return function()
    except TaskError:
        raise
    except (Exception, SystemExit) as error:
        raise TaskError(f"{what} raised {type(error).__name__}: {error}") from error
