"""Outputs and targets that don't fit each other are refused before any training, with the metric or loss that fits."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from autoprune.errors import TaskError
from autoprune.tasks.built_in_metrics import make_metric
from autoprune.tasks.check import check_task
from autoprune.tasks.classification import accuracy, cross_entropy
from autoprune.tasks.losses import ModuleLoss, make_loss
from autoprune.tasks.splits import DatasetSplit, TensorSplit
from autoprune.tasks.task import Data, Loss, Metric, Task

N = 40


def checked(
    outputs: tuple[int, ...], targets: torch.Tensor, loss: Loss, metric: Metric, *, in_memory: bool = True
) -> None:
    """Check a task whose network gives outputs of this shape for an example."""
    inputs = torch.randn(len(targets), 4, generator=torch.Generator().manual_seed(0))
    split: Any = TensorSplit(inputs, targets)
    if not in_memory:
        split = DatasetSplit(torch.utils.data.TensorDataset(inputs, targets))
    size = int(torch.tensor(outputs).prod()) if outputs else 1
    torch.manual_seed(0)

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(4, size), nn.Unflatten(1, outputs) if outputs else nn.Flatten(0))

    task = Task(build, Data(split, split, split), loss, metric)
    check_task(task, task.build_model())


def ints(*shape: int, high: int = 2) -> torch.Tensor:
    return torch.arange(N * int(torch.tensor(shape).prod())).reshape(N, *shape) % high


def own_bce(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(outputs.squeeze(1), targets.float())


def own_cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, targets.long(), ignore_index=255)


def own_mse(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(outputs.reshape(targets.shape), targets)


def broadcasting(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).abs().mean()


def marked(label: int, high: int = 3) -> torch.Tensor:
    """Labels of which one is marked, far behind the first few examples."""
    return ints(4, 4, high=high).index_put(
        (torch.tensor([N - 2]), torch.tensor([1]), torch.tensor([3])), torch.tensor(label)
    )


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("label", [255, -100, 3])
def test_labels_that_may_be_meant_to_be_ignored(label: int, in_memory: bool) -> None:
    refused = rf"targets must be in \[0, 3\).* got {label} in the train split.*ignore_index: {label}"
    for metric in (accuracy, make_metric("iou", {}), make_metric("f1", {})):
        with pytest.raises(TaskError, match=refused):
            checked((3, 4, 4), marked(label), own_cross_entropy, metric, in_memory=in_memory)
    for metric in (make_metric(name, {"ignore_index": label}) for name in ("accuracy", "iou", "f1")):
        checked((3, 4, 4), marked(label), own_any, metric)


def own_any(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs.square().mean()


@pytest.mark.parametrize(
    ("outputs", "targets", "loss", "metric", "message"),
    [
        ((1,), ints(), own_bce, accuracy, r"accuracy needs outputs of shape \(n, n_classes.*task: binary.*f1 or auroc"),
        ((), ints(), own_any, accuracy, r"accuracy needs outputs of shape .*got \(3,\) and \(3,\)"),
        ((1, 4, 4), ints(4, 4), own_any, accuracy, "a column for each class and two at least"),
        ((2,), ints(1), own_any, make_metric("top5", {}), r"top5 needs outputs of shape .*\(3, 2\) and \(3, 1\)"),
        ((4,), ints(high=4), own_any, make_metric("top5", {}), "top5 counts the 5 highest of 4 columns"),
        ((3,), ints(high=5), own_any, accuracy, r"targets must be in \[0, 3\), as the model has 3 outputs, got 4"),
        ((3,), ints(high=5), own_any, make_metric("recall", {}), r"recall: targets must be in \[0, 3\)"),
        ((1,), ints(high=3), own_any, make_metric("f1", {}), "f1 with outputs .* needs targets 0 and 1, got 2"),
        ((1,), torch.rand(N), own_any, make_metric("f1", {}), "needs targets 0 and 1, got 0.*for numbers write rmse"),
        ((3,), functional.one_hot(ints(high=3), 3), own_any, make_metric("f1", {}), "exactly one 1.*task: multilabel"),
        ((1,), ints() * 0, own_any, make_metric("auroc", {}), "auroc needs both classes in the train split"),
        ((2,), ints(), own_any, make_metric("f1", {}), r"f1 of two classes .*task: binary"),
        ((2,), torch.rand(N), own_any, make_metric("rmse", {}), r"same shape, got \(3, 2\) and \(3,\)"),
        ((3,), torch.rand(N), own_any, accuracy, r"targets are floats of shape \(3,\)"),
        ((3,), ints(high=3), own_any, make_metric("f1", {"averag": "macro"}), r"task.metric: f1: .*averag"),
        ((1,), torch.rand(N), make_loss("mse", {}), own_any, r"task.loss: mse needs .* of one shape.*every target"),
        ((), torch.rand(N, 1), make_loss("l1", {}), own_any, "task.loss: l1 needs outputs and targets of one shape"),
        ((1,), ints(), make_loss("bce_with_logits", {}), own_any, "bce_with_logits needs outputs and targets of one"),
        ((), ints(high=3), make_loss("bce_with_logits", {}), own_any, r"targets in \[0, 1\], got 2"),
        ((1,), ints(), make_loss("nll", {}), own_any, "For one logit an example write bce_with_logits"),
        (
            (3,),
            ints(high=4),
            make_loss("cross_entropy", {"label_smoothing": 0.1}),
            own_any,
            r"task.loss: cross_entropy: targets must be in \[0, 3\)",
        ),
        ((1,), torch.rand(N), ModuleLoss(nn.MSELoss()), own_any, r"task.loss compares every output with every target"),
        ((1,), torch.rand(N), nn.SmoothL1Loss(), own_any, r"task.loss compares every output with every target"),
        ((1,), torch.rand(N), broadcasting, own_any, r"outputs of shape \(3, 1\) are broadcast .* \(3,\)"),
        ((), torch.rand(N, 1), own_mse, broadcasting, "task.metric compares every output with every target"),
    ],
)
def test_what_does_not_fit(
    outputs: tuple[int, ...], targets: torch.Tensor, loss: Loss, metric: Metric, message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        checked(outputs, targets, loss, metric)


@pytest.mark.parametrize(
    ("outputs", "targets", "loss", "metric"),
    [
        ((1,), ints(), own_bce, make_metric("accuracy", {"task": "binary"})),
        ((1,), ints().float(), own_bce, make_metric("f1", {})),
        ((2,), ints(), cross_entropy, make_metric("f1", {"task": "binary"})),
        ((3,), ints(3), make_loss("bce_with_logits", {}), make_metric("f1", {"task": "multilabel"})),
        ((1,), torch.rand(N), own_mse, make_metric("rmse", {})),
        ((1,), torch.rand(N, 1), ModuleLoss(nn.MSELoss()), make_metric("r2", {})),
        ((), torch.rand(N), make_loss("huber", {}), broadcasting),
        ((2,), ints(), cross_entropy, lambda outputs, targets: (outputs.argmax(1) == targets).float().mean()),
    ],
)
def test_what_fits(outputs: tuple[int, ...], targets: torch.Tensor, loss: Loss, metric: Metric) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked(outputs, targets, loss, metric)


def test_loss_and_metric_ignore_the_same() -> None:
    loss = make_loss("cross_entropy", {"ignore_index": 255})
    for name, ignored in (("accuracy", None), ("iou", 0)):
        metric = make_metric(name, {} if ignored is None else {"ignore_index": ignored})
        with pytest.raises(TaskError, match="ignore"):
            checked((3, 4, 4), marked(255), loss, metric)
    with pytest.raises(TaskError, match="must ignore the targets that the loss ignores, got ignore_index 0 and 255"):
        checked((3, 4, 4), ints(4, 4, high=3), loss, make_metric("iou", {"ignore_index": 0}))
    with pytest.raises(TaskError, match=r"got ignore_index 255 and None.*\{ignore_index: 255\}"):
        checked((3,), ints(high=3), cross_entropy, make_metric("f1", {"ignore_index": 255}))
    checked((3, 4, 4), marked(255), loss, make_metric("iou", {"ignore_index": 255}))
