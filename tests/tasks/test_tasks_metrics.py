"""Built-in and own metrics over a split in batches, against scikit-learn on the whole split, and their errors."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from autoprune.config.metric import METRICS
from autoprune.config.task import MetricSettings, TaskSettings
from autoprune.errors import TaskError
from autoprune.tasks.build import build_task
from autoprune.tasks.built_in_metrics import make_metric
from autoprune.tasks.classification import accuracy
from autoprune.tasks.metrics import start
from autoprune.tasks.task import Metric

N = 230


def judged(metric: Metric, outputs: Any, targets: torch.Tensor, batch: int = 37, with_error: bool = False) -> Any:
    """The metric over batches, and its standard error if it is wanted."""
    running = start(metric, len(targets), with_error=with_error)
    for index in range(0, len(targets), batch):
        part = slice(index, index + batch)
        running.update(outputs[part], targets[part])
    return (running.compute(), running.standard_error()) if with_error else running.compute()


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


CLASSES = {
    "f1": lambda t, p: sk.f1_score(t, p, average="macro"),
    "precision": lambda t, p: sk.precision_score(t, p, average="macro"),
    "recall": lambda t, p: sk.recall_score(t, p, average="macro"),
    "iou": lambda t, p: sk.jaccard_score(t, p, average="macro"),
    "cohen_kappa": sk.cohen_kappa_score,
    "mcc": sk.matthews_corrcoef,
    "accuracy": sk.accuracy_score,
}


@pytest.mark.parametrize("name", CLASSES)
def test_several_classes(name: str, generator: torch.Generator) -> None:
    targets = torch.randint(0, 4, (N,), generator=generator)
    outputs = torch.randn(N, 4, generator=generator) + 1.5 * nn.functional.one_hot(targets, 4)
    expected = CLASSES[name](targets.numpy(), outputs.argmax(1).numpy())
    assert judged(make_metric(name, {}), outputs, targets) == pytest.approx(expected, abs=1e-6)


def test_ranking_of_several_classes(generator: torch.Generator) -> None:
    targets = torch.randint(0, 3, (N,), generator=generator)
    outputs = 3 * torch.randn(N, 3, generator=generator) + nn.functional.one_hot(targets, 3)
    expected = sk.roc_auc_score(targets.numpy(), outputs.double().softmax(1).numpy(), multi_class="ovr")
    for given in (outputs, outputs.softmax(1)):
        assert judged(make_metric("auroc", {}), given, targets) == pytest.approx(expected, abs=1e-5)


BINARY: dict[str, Callable[..., float]] = {
    "f1": sk.f1_score,
    "precision": sk.precision_score,
    "recall": sk.recall_score,
    "iou": sk.jaccard_score,
    "accuracy": sk.accuracy_score,
    "auroc": sk.roc_auc_score,
    "average_precision": sk.average_precision_score,
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("form", ["(n,)", "(n, 1)", "probabilities", "two columns", "batches of positive logits"])
def test_two_classes(name: str, form: str, generator: torch.Generator) -> None:
    """Logits of one batch may all lie in [0, 1], as probabilities do: the whole split decides which they are."""
    targets = (torch.rand(N, generator=generator) < 0.2).long()
    logits = 0.8 * torch.randn(N, generator=generator) + targets - 0.5
    args = {"task": "binary"} if name == "accuracy" or form == "two columns" else {}
    if form.startswith("batches"):
        order = logits.argsort()
        targets, logits = targets[order], logits[order]
    outputs = {"(n, 1)": logits[:, None], "probabilities": logits.sigmoid()}.get(form, logits)
    if form == "two columns":
        outputs = torch.stack([torch.full_like(logits, 0.7), 0.7 + logits], dim=1)
    found = (logits if name in ("auroc", "average_precision") else logits > 0).numpy()
    expected = BINARY[name](targets.numpy(), found)
    labels = targets.float() if form == "(n,)" else targets
    assert judged(make_metric(name, args), outputs, labels, batch=10) == pytest.approx(expected, abs=1e-6)


def test_large_logits_keep_their_order() -> None:
    outputs, targets = torch.tensor([40.0, 50.0, 60.0, 70.0]), torch.tensor([0, 1, 0, 1])
    assert judged(make_metric("auroc", {}), outputs, targets) == pytest.approx(0.75)


def test_labels_and_masks(generator: torch.Generator) -> None:
    targets = torch.randint(0, 2, (N, 3), generator=generator)
    outputs = torch.randn(N, 3, generator=generator) + targets
    expected = sk.f1_score(targets.numpy(), (outputs > 0).numpy(), average="macro")
    assert judged(make_metric("f1", {}), outputs, targets) == pytest.approx(expected, abs=1e-6)
    masks, scores = targets[:, None, :, None], outputs[:, None, :, None]
    flat = sk.jaccard_score(targets.numpy().ravel(), (outputs > 0).numpy().ravel())
    assert judged(make_metric("iou", {}), scores, masks) == pytest.approx(flat, abs=1e-6)


@pytest.mark.parametrize("ignored", [255, -100])
def test_targets_that_are_ignored(ignored: int, generator: torch.Generator) -> None:
    targets = torch.randint(0, 3, (60, 5, 4), generator=generator)
    outputs = torch.randn(60, 3, 5, 4, generator=generator)
    counts = torch.rand(targets.shape, generator=generator) < 0.6
    found, wanted = outputs.argmax(1)[counts].numpy(), targets[counts].numpy()
    given = torch.where(counts, targets, ignored)
    for name, expected in (("accuracy", (found == wanted).mean()), ("iou", CLASSES["iou"](wanted, found))):
        metric = make_metric(name, {"ignore_index": ignored})
        assert judged(metric, outputs, given, batch=7) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["mae", "mse", "rmse", "r2", "mape"])
@pytest.mark.parametrize("shape", [(), (1,), (2,)])
def test_numbers(name: str, shape: tuple[int, ...], generator: torch.Generator) -> None:
    targets = 40 + 5 * torch.randn(N, *shape, generator=generator)
    outputs = targets + torch.randn(N, *shape, generator=generator)
    functions: dict[str, Callable[..., float]] = {
        "mae": sk.mean_absolute_error,
        "mse": sk.mean_squared_error,
        "rmse": lambda t, p: math.sqrt(sk.mean_squared_error(t, p)),
        "r2": sk.r2_score,
        "mape": sk.mean_absolute_percentage_error,
    }
    expected = functions[name](targets.numpy(), outputs.numpy())
    assert judged(make_metric(name, {}), outputs, targets) == pytest.approx(expected, rel=1e-4)
    if shape == (1,):
        assert judged(make_metric(name, {}), outputs, targets[:, 0]) == pytest.approx(expected, rel=1e-4)


def test_top5(generator: torch.Generator) -> None:
    outputs, targets = torch.randn(N, 9, generator=generator), torch.randint(0, 9, (N,), generator=generator)
    expected = sk.top_k_accuracy_score(targets.numpy(), outputs.numpy(), k=5)
    assert judged(make_metric("top5", {}), outputs, targets) == pytest.approx(expected)


def test_accuracy_is_to_the_bit_what_it_was(generator: torch.Generator) -> None:
    for n in (3, 7, 150, 1797, 9999):
        outputs, targets = torch.randn(n, 5, generator=generator), torch.randint(0, 5, (n,), generator=generator)
        assert judged(accuracy, outputs, targets) == float((outputs.argmax(1) == targets).float().mean())


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "message"),
    [
        ("f1", (9, 2), (9,), r"f1 of two classes .*args: \{task: binary\}\} or .*args: \{average: macro\}\}"),
        ("iou", (9, 4, 4), (9, 4, 4), "may be binary, or have 4 labels.*task: binary.*task: multilabel"),
        ("recall", (9, 3), (9, 2), "needs outputs of shape .* or both of one shape"),
        ("rmse", (9, 2), (9,), r"must have the same shape, got \(9, 2\) and \(9,\)"),
        ("cohen_kappa", (9, 3), (9, 3), "is not defined for several labels"),
    ],
)
def test_shapes_that_leave_it_open(name: str, outputs: tuple[int, ...], targets: tuple[int, ...], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        judged(make_metric(name, {}), torch.rand(outputs), torch.zeros(targets, dtype=torch.long))


def test_arguments_that_a_metric_does_not_take() -> None:
    for name, args in (("mae", {"beta": 2}), ("r2", {"beta": 2}), ("f1", {"task": "both"})):
        with pytest.raises(TaskError, match=r"^task\.metric: "):
            make_metric(name, args)
    with pytest.raises(TaskError, match="num_classes is 4, but the outputs have 3 columns"):
        judged(make_metric("f1", {"num_classes": 4}), torch.rand(9, 3), torch.arange(9) % 3)


def test_every_name_can_be_made() -> None:
    for name in METRICS:
        assert callable(make_metric(name, {}))


def test_the_error_of_a_mean_is_that_of_its_examples(generator: torch.Generator) -> None:
    outputs, targets = torch.randn(N, 4, generator=generator), torch.randint(0, 4, (N,), generator=generator)
    value, error = judged(accuracy, outputs, targets, with_error=True)
    assert error == pytest.approx(math.sqrt(value * (1 - value) / (N - 1)), rel=1e-6)
    numbers = torch.randn(N, generator=generator)
    value, error = judged(make_metric("mae", {}), numbers, torch.zeros(N), with_error=True)
    assert error == pytest.approx(float(numbers.abs().std()) / math.sqrt(N), rel=1e-5)


def own_accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(1) == targets).float().mean()


@pytest.mark.parametrize(
    ("metric", "numbers"),
    [(own_accuracy, False), ("recall", False), ("f1", False), ("auroc", False), ("rmse", True), ("r2", True)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_are_of_the_size_of_what_other_splits_give(metric: Any, numbers: bool) -> None:
    """Against the spread over 60 splits of the same distribution."""
    metric = make_metric(metric, {}) if isinstance(metric, str) else metric
    values, errors = [], []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        targets = torch.randint(0, 3, (N,), generator=generator)
        outputs = torch.randn(N, 3, generator=generator) + nn.functional.one_hot(targets, 3)
        if numbers:
            targets = 40 + torch.randn(N, generator=generator)
            outputs = targets + torch.randn(N, generator=generator)
        if seed % 6 == 0:
            value, error = judged(metric, outputs, targets, batch=115, with_error=True)
            errors.append(error)
        else:
            value = judged(metric, outputs, targets, batch=115)
        values.append(value)
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.35)


def test_where_there_is_no_error() -> None:
    def needs_all(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        if len(targets) < 40:
            raise ValueError("too few")
        return float("nan") if targets.sum() == 0 else 0.5

    assert judged(needs_all, torch.zeros(40, 2), torch.ones(40), with_error=True) == (0.5, None)
    assert judged(accuracy, torch.zeros(1, 2), torch.zeros(1).long(), with_error=True) == (1.0, None)
    one_positive = torch.zeros(40).long().index_fill(0, torch.tensor([7]), 1)
    assert judged(make_metric("auroc", {}), torch.rand(40), one_positive, with_error=True)[1] is None
    assert math.isnan(judged(make_metric("auroc", {}), torch.rand(40), torch.zeros(40).long()))


def test_outputs_of_any_form_reach_an_own_metric() -> None:
    def widths(outputs: Any, targets: torch.Tensor) -> float:
        return float(outputs.boxes.mean() + targets.float().mean())

    outputs = [SimpleNamespace(boxes=torch.full((5, 4), float(index)), scale=torch.tensor(2.0)) for index in range(6)]
    running = start(widths, 30, with_error=True)
    for each in outputs:
        running.update(each, torch.ones(5))
    assert running.compute() == pytest.approx(3.5)
    assert running.standard_error() == pytest.approx(1.7 / math.sqrt(30), rel=0.5)


OWN = """
import torch
from torch import nn
import torchmetrics


class Weighted(torchmetrics.MeanMetric):
    higher_is_better = True

    def update(self, outputs, targets):
        super().update((outputs.argmax(1) == targets).float())


made = Weighted()


def net():
    return nn.Linear(4, 3)


def data():
    split = torch.randn(60, 4), torch.arange(60) % 3
    return {"train": split, "validation": split, "test": split}


class Half:
    def __init__(self, factor=0.5):
        self.factor = factor

    def __call__(self, outputs, targets):
        return self.factor * (outputs.argmax(1) == targets).float().mean()
"""


def test_classes_and_instances_are_taken(tmp_path: Any, generator: torch.Generator) -> None:
    (tmp_path / "own_metrics.py").write_text(OWN)
    outputs, targets = torch.randn(60, 3, generator=generator), torch.arange(60) % 3
    expected = float(accuracy(outputs, targets))

    def of(reference: str, direction: Any = "maximize", **args: Any) -> Metric:
        metric = MetricSettings(name="m", direction=direction, callable=reference, args=args)
        settings = TaskSettings.model_validate({"model": "own_metrics:net", "data": "own_metrics:data"})
        return build_task(settings.model_copy(update={"metric": metric}), tmp_path).metric

    for metric in (of("own_metrics:Weighted"), of("own_metrics:made")):
        value, error = judged(metric, outputs, targets, with_error=True)
        assert value == pytest.approx(expected)
        assert error == pytest.approx(math.sqrt(expected * (1 - expected) / 59), rel=0.4)
    f1 = of("torchmetrics.classification:MulticlassF1Score", num_classes=3)
    assert judged(f1, outputs, targets) == pytest.approx(judged(make_metric("f1", {}), outputs, targets))
    assert judged(of("own_metrics:Half", factor=0.25), outputs, targets) == pytest.approx(0.25 * expected)
    with pytest.raises(TaskError, match="direction must be maximize for own_metrics:made, got minimize"):
        of("own_metrics:made", "minimize")
    with pytest.raises(TaskError, match="is an instance already"):
        of("own_metrics:made", nan_strategy="warn")
