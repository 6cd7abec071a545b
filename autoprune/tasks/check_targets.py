"""Do outputs and targets fit the built-in losses and metrics? All targets are looked at where they are in memory."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch

from autoprune.errors import TaskError
from autoprune.network.call import Inputs
from autoprune.tasks.built_in_metrics import (
    RANKING,
    ClassificationMetric,
    NamedMean,
    RegressionMetric,
    aligned,
)
from autoprune.tasks.classification import accuracy, cross_entropy, logits_of
from autoprune.tasks.losses import NamedLoss
from autoprune.tasks.splits import NamedSplit, spread_indices
from autoprune.tasks.task import Data, Metric, Split, Task

N_SAMPLED = 2000
"""Examples whose targets are read where a split keeps no targets in memory, spread evenly."""
N_COMPARED = 8
"""Examples that are read to see whether the targets in memory are theirs."""

CLASS_LOSSES = ("cross_entropy", "nll")
"""Losses of class indices, with a column of the outputs for each class."""

_OTHERS = "For one logit an example write {name: accuracy, args: {task: binary}}, f1 or auroc; for numbers rmse or r2"


class _Targets:
    """The targets of train and validation: all where they are in memory, else of examples spread evenly."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(self._splits.items())

    @cached_property
    def _splits(self) -> dict[str, torch.Tensor]:
        found = {}
        for name in ("train", "validation"):
            split = getattr(self._data, name)
            targets = getattr(split, "targets", None)
            if not isinstance(targets, torch.Tensor) or not _as_read(self._data, name, targets):
                targets = read_examples(self._data, name, spread_indices(len(split), N_SAMPLED))[1]
            found[name] = targets
        return found


def is_built_in(metric: Metric) -> bool:
    """Whether a metric is one that a space file can name."""
    return metric is accuracy or isinstance(metric, NamedMean | ClassificationMetric | RegressionMetric)


def check_targets(task: Task, outputs: Any, targets: torch.Tensor) -> None:
    """Compare outputs and targets with what a task's built-in loss and metric take; own ones are not looked at.

    Args:
        outputs, targets: Of a few training examples.

    Raises:
        TaskError: If they don't fit, or the loss ignores other targets than the metric.
    """
    every = _Targets(task.data)
    if task.loss is cross_entropy or isinstance(task.loss, NamedLoss):
        _check_loss(task, every, outputs, targets)
    if not is_built_in(task.metric):
        return
    if isinstance(task.metric, ClassificationMetric):
        _check_classification(task.metric, every, outputs, targets)
    elif task.metric is accuracy or (isinstance(task.metric, NamedMean) and task.metric.name in ("accuracy", "top5")):
        _check_hits(task, every, outputs, targets)
    else:
        aligned(outputs, targets)
    _check_same_ignored(task)


def _count_classes(every: _Targets) -> int | None:
    """Count the classes in train and validation: the highest target plus one; ``None`` if targets are no integers.

    A split that keeps no targets in memory is sampled, evenly.

    Raises:
        TaskError: If a target is negative, or an example can't be read.
    """
    highest = -1
    for name, labels in every:
        if labels.is_floating_point():
            return None
        if int(labels.min()) < 0:
            raise TaskError(
                f"targets in the {name} split must be class indices from 0, got {int(labels.min())}. Number "
                f"the classes from 0{_ignoring(int(labels.min()))}."
            )
        highest = max(highest, int(labels.max()))
    return highest + 1


def _check_loss(task: Task, every: _Targets, outputs: Any, targets: torch.Tensor) -> None:
    scores = logits_of(outputs)
    name = task.loss.name if isinstance(task.loss, NamedLoss) else "cross_entropy"
    args = task.loss.args if isinstance(task.loss, NamedLoss) else {}
    if name not in CLASS_LOSSES:
        if scores.shape != targets.shape:
            raise TaskError(
                f"task.loss: {name} needs outputs and targets of one shape, got {tuple(scores.shape)} and "
                f"{tuple(targets.shape)}{_broadcast(scores, targets)}. Change the model's last layer, or the "
                "targets in task.data."
            )
        if name in ("bce", "bce_with_logits"):
            for split, labels in every:
                if float(labels.min()) < 0 or float(labels.max()) > 1:
                    found = labels.min() if float(labels.min()) < 0 else labels.max()
                    raise TaskError(f"task.loss: {name} needs targets in [0, 1], got {found.item()} in {split}.")
        return
    if targets.is_floating_point():
        if name == "nll":
            raise TaskError("task.loss: nll needs class indices as targets, got floats. For numbers write mse.")
        _check_probabilities(targets, scores, normalised=True)
        return
    _check_columns(f"task.loss: {name}", scores, targets)
    if not args:
        _check_classes(every, scores)
    else:
        _check_labels(f"task.loss: {name}", every, scores.shape[1], args.get("ignore_index"))


def _check_hits(task: Task, every: _Targets, outputs: Any, targets: torch.Tensor) -> None:
    scores = logits_of(outputs)
    named = task.metric if isinstance(task.metric, NamedMean) else None
    name, args = (named.name, named.args) if named else ("accuracy", {})
    if targets.is_floating_point():
        _check_probabilities(targets, scores, normalised=False)
        return
    _check_columns(f"task.metric: {name}", scores, targets)
    if args.get("top_k", 1) >= scores.shape[1]:
        raise TaskError(
            f"task.metric: {name} counts the {args['top_k']} highest of {scores.shape[1]} columns, which is every one. "
            "Write accuracy, or {name: accuracy, args: {top_k: 2}}."
        )
    _check_labels(f"task.metric: {name}", every, scores.shape[1], args.get("ignore_index"))


def _check_classes(every: _Targets, logits: torch.Tensor) -> None:
    n_classes = _count_classes(every)
    if n_classes is None:
        return
    if logits.shape[1] != n_classes:
        raise TaskError(
            f"data has {n_classes} classes, model has {logits.shape[1]} outputs. Set the model's number of classes "
            f"under task.model, or name your own loss under task.loss."
        )


def _check_probabilities(targets: torch.Tensor, logits: torch.Tensor, *, normalised: bool) -> None:
    way_out = "Or name your own task.loss and task.metric."
    if targets.shape != logits.shape or logits.ndim < 2 or logits.shape[1] < 2:
        raise TaskError(
            f"targets are floats of shape {tuple(targets.shape)}, outputs have shape {tuple(logits.shape)}: the "
            f"default loss and metric take class indices (whole numbers), or class probabilities of the outputs' shape "
            f"with 2 or more columns. {way_out}"
        )
    sums = targets.sum(dim=1)
    if normalised and (targets.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=0.01)):
        raise TaskError(
            f"targets are floats of shape {tuple(targets.shape)}, which the default loss takes as class probabilities: "
            f"they must be 0 or more and add up to 1 for each example. {way_out}"
        )


def _check_columns(where: str, scores: torch.Tensor, targets: torch.Tensor) -> None:
    """Check for a column for each class, and two classes at least."""
    if scores.ndim == targets.ndim + 1 and scores.shape[:1] + scores.shape[2:] == targets.shape and scores.shape[1] > 1:
        return
    way_out = "For one logit an example write bce_with_logits; for numbers mse" if "loss" in where else _OTHERS
    raise TaskError(
        f"{where} needs outputs of shape (n, n_classes, ...), a column for each class and two at least, and targets of "
        f"shape (n, ...), got {tuple(scores.shape)} and {tuple(targets.shape)}. {way_out}."
    )


def _check_labels(where: str, every: _Targets, n_classes: int, ignore_index: int | None) -> None:
    """Check that all targets are class indices below a number of columns, but for the one that is ignored."""
    for name, labels in every:
        if labels.is_floating_point():
            raise TaskError(f"{where} needs class indices as targets, got floats in the {name} split.")
        counted = labels if ignore_index is None else labels[labels != ignore_index]
        wrong = counted[(counted < 0) | (counted >= n_classes)]
        if len(wrong):
            found = int(wrong.min()) if int(wrong.min()) < 0 else int(wrong.max())
            raise TaskError(
                f"{where}: targets must be in [0, {n_classes}), as the model has {n_classes} outputs, got {found} in "
                f"the {name} split. Set the model's number of classes under task.model{_ignoring(found)}."
            )


def _ignoring(label: int) -> str:
    """How to leave targets out, where a label looks like one that marks them."""
    return f"; if {label} marks targets that don't count, give the metric and the loss args: {{ignore_index: {label}}}"


def _check_classification(metric: ClassificationMetric, every: _Targets, outputs: Any, targets: torch.Tensor) -> None:
    layout = metric.layout(outputs, targets)
    metric.make(layout, checks=True)
    where = f"task.metric: {metric.name}"
    if layout.kind == "multiclass":
        _check_labels(where, every, layout.n, metric.ignore_index)
        return
    for name, labels in every:
        counted = labels if metric.ignore_index is None else labels[labels != metric.ignore_index]
        wrong = counted[(counted != 0) & (counted != 1)]
        if len(wrong):
            raise TaskError(
                f"{where} with outputs of shape {tuple(logits_of(outputs).shape)} needs targets 0 and 1, got "
                f"{wrong[0].item():g} in the {name} split. Give the model a column for each class"
                + (_ignoring(int(wrong[0])) if float(wrong[0]).is_integer() else "; for numbers write rmse or r2")
                + "."
            )
        if layout.kind == "multilabel" and metric.kind is None and bool((labels.sum(dim=1) == 1).all()):
            raise TaskError(
                f"{where}: every row of the targets in {name} has exactly one 1: they may be classes or labels. Give "
                f"class indices as targets, or write {{name: {metric.name}, args: {{task: multilabel}}}}."
            )
        if layout.kind == "binary" and metric.name in RANKING and float(counted.min()) == float(counted.max()):
            raise TaskError(f"{where} needs both classes in the {name} split, got one.")


def _check_same_ignored(task: Task) -> None:
    """Check that a built-in loss of classes and the metric ignore the same target."""
    if task.loss is cross_entropy:
        of_loss = None
    elif isinstance(task.loss, NamedLoss) and task.loss.name in CLASS_LOSSES:
        of_loss = task.loss.args.get("ignore_index")
    else:
        return
    metric = task.metric
    if not (metric is accuracy or isinstance(metric, NamedMean | ClassificationMetric)):
        return
    of_metric = metric.args.get("ignore_index") if isinstance(metric, NamedMean | ClassificationMetric) else None
    if of_loss != of_metric:
        raise TaskError(
            f"task.metric: the metric must ignore the targets that the loss ignores, got ignore_index {of_metric} and "
            f"{of_loss}. Give both the same args: {{ignore_index: {of_loss if of_metric is None else of_metric}}}."
        )


def _broadcast(scores: torch.Tensor, targets: torch.Tensor) -> str:
    if scores.numel() != targets.numel():
        return ""
    return ", which would compare every output with every target"


def _as_read(data: Data, name: str, targets: torch.Tensor) -> bool:
    """Whether the targets that a split keeps in memory are those of the examples, as far as a few of them show."""
    indices = spread_indices(len(targets), N_COMPARED)
    return len(targets) == len(getattr(data, name)) and torch.equal(
        targets[indices].float(), read_examples(data, name, indices)[1].float()
    )


def read_examples(data: Data, name: str, indices: torch.Tensor) -> tuple[Inputs, torch.Tensor]:
    split: Split = getattr(data, name)
    return (split if isinstance(split, NamedSplit) else NamedSplit(split, name)).batch(indices)
