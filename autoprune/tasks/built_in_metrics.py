"""The metrics that a space file can name: what each is, and which outputs and targets it takes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from autoprune.errors import TaskError
from autoprune.tasks.classification import accuracy, hits, logits_of
from autoprune.tasks.metrics import ExampleMean, RunningTorchMetric, TorchMetric, Values
from autoprune.tasks.task import Accumulator, Metric

if TYPE_CHECKING:
    import torchmetrics

Kind = Literal["binary", "multiclass", "multilabel"]

CLASSIFICATION = {
    "accuracy": "Accuracy",
    "f1": "F1Score",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "auroc": "AUROC",
    "average_precision": "AveragePrecision",
    "cohen_kappa": "CohenKappa",
    "mcc": "MatthewsCorrCoef",
    "iou": "JaccardIndex",
}
"""Name -> the class of torchmetrics, without its first word, which is the kind."""

RANKING = {"auroc", "average_precision"}
"""Those that need scores; the others need decisions."""

SYMMETRIC = {"accuracy", "auroc", "cohen_kappa", "mcc"}
"""Those that are the same whichever of two classes is called the positive one."""


def make_metric(name: str, args: Mapping[str, Any]) -> Metric:
    """Return a built-in metric.

    Args:
        name: One of :data:`autoprune.config.metric.METRICS`.
        args: Of :func:`hits` for accuracy and top5; of torchmetrics' class for the rest, and ``task`` (``binary``,
            ``multiclass`` or ``multilabel``) where outputs and targets leave it open.

    Raises:
        TaskError: If the metric takes no such arguments.
    """
    if name in ("accuracy", "top5") and args.keys() <= {"top_k", "ignore_index"}:
        given = {"top_k": 5} | dict(args) if name == "top5" else dict(args)
        return NamedMean(name, partial(hits, **given), given) if given else accuracy
    if name in CLASSIFICATION:
        return ClassificationMetric(name, args)
    if name in ("mae", "mse", "rmse") and not args:
        transform = (math.sqrt, lambda mean: 0.5 / math.sqrt(mean)) if name == "rmse" else None
        return NamedMean(name, _absolute_errors if name == "mae" else _squared_errors, {}, transform)
    if name in ("r2", "mape"):
        return RegressionMetric(name, args)
    raise TaskError(f"task.metric: {name} takes no such arguments, got {', '.join(args)}.")


class NamedMean(ExampleMean):
    """A built-in metric that is a mean over elements."""

    def __init__(
        self,
        name: str,
        values: Callable[[Any, torch.Tensor], Values],
        args: Mapping[str, Any],
        transform: tuple[Callable[[float], float], Callable[[float], float]] | None = None,
    ) -> None:
        super().__init__(values, transform)
        self.name, self.args = name, args


class RegressionMetric:
    """A metric of torchmetrics that compares numbers."""

    def __init__(self, name: str, args: Mapping[str, Any]) -> None:
        import torchmetrics

        self.name, self.args = name, args
        kind = torchmetrics.R2Score if name == "r2" else torchmetrics.MeanAbsolutePercentageError
        self._metric: torchmetrics.Metric = _made(name, kind, dict(args))

    def __call__(self, outputs: Any, targets: torch.Tensor) -> float:
        return TorchMetric(self._metric)(*aligned(outputs, targets))

    def start(self, n_examples: int, *, with_error: bool) -> Accumulator:
        """Begin a split."""
        return _Aligned(RunningTorchMetric(self._metric, n_examples, with_error=with_error))


class _Aligned:
    """Gives outputs and targets of one shape to a metric."""

    def __init__(self, running: RunningTorchMetric) -> None:
        self._running = running
        self.compute, self.standard_error = running.compute, running.standard_error

    def update(self, outputs: Any, targets: torch.Tensor) -> None:
        self._running.update(*aligned(outputs, targets))


def aligned(outputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions and targets as floats of one shape: a dimension of size 1 may be left out in one of them.

    Raises:
        TaskError: If they are of different shapes.
    """
    values = logits_of(outputs)
    if _squeezed(values.shape) != _squeezed(targets.shape):
        raise TaskError(
            f"task.metric: outputs and targets must have the same shape, got {tuple(values.shape)} and "
            f"{tuple(targets.shape)}."
        )
    values = values.reshape(targets.shape)
    return values if values.is_floating_point() else values.float(), targets.to(values.dtype)


def _squeezed(shape: torch.Size) -> list[int]:
    """A shape without the dimensions of size 1, but for the first."""
    return [*shape[:1], *(size for size in shape[1:] if size != 1)]


def _absolute_errors(outputs: Any, targets: torch.Tensor) -> Values:
    values, wanted = aligned(outputs, targets)
    return (values.double() - wanted.double()).abs(), None


def _squared_errors(outputs: Any, targets: torch.Tensor) -> Values:
    values, wanted = aligned(outputs, targets)
    return (values.double() - wanted.double()).square(), None


@dataclass(frozen=True)
class Layout:
    """What outputs and targets stand for.

    Attributes:
        n: Classes or labels; 2 if binary.
    """

    kind: Kind
    n: int


class ClassificationMetric:
    """A metric of torchmetrics that compares class scores with classes.

    The kind (binary, multiclass, multilabel) and the number of classes follow from the shapes. F1, precision, recall,
    specificity, average precision and IoU are the mean over the classes (``average: macro``) where there are several.

    Args:
        args: Of torchmetrics' class, and ``task``.
    """

    def __init__(self, name: str, args: Mapping[str, Any]) -> None:
        self.name = name
        self.kind: Kind | None = args.get("task")
        self.args = {key: value for key, value in args.items() if key != "task"}
        if self.kind not in (None, "binary", "multiclass", "multilabel"):
            raise TaskError(f"task.metric: task must be binary, multiclass or multilabel, got {self.kind!r}.")

    @property
    def ignore_index(self) -> int | None:
        """Target of elements that don't count."""
        index: int | None = self.args.get("ignore_index")
        return index

    def __call__(self, outputs: Any, targets: torch.Tensor) -> float:
        """Return the metric of these examples alone."""
        running = self.start(len(targets), with_error=False)
        running.update(outputs, targets)
        return running.compute()

    def start(self, n_examples: int, *, with_error: bool) -> Accumulator:
        """Begin a split."""
        return _RunningClassification(self, n_examples, with_error=with_error)

    def layout(self, outputs: Any, targets: torch.Tensor) -> Layout:
        """Return what outputs and targets stand for.

        Raises:
            TaskError: If their shapes don't fit, or leave the kind open; with the argument that settles it.
        """
        scores, kind = logits_of(outputs), self.kind
        shapes = f"outputs of shape {tuple(scores.shape)}, targets of shape {tuple(targets.shape)}"
        columns = scores.shape[1] if scores.ndim > 1 else 1
        has_classes = scores.ndim == targets.ndim + 1 and _without_1(scores.shape) == targets.shape
        if scores.ndim == targets.ndim > 1:  # the targets have a dimension of size 1 for the classes
            has_classes = targets.shape[1] == 1 < columns and _without_1(scores.shape) == _without_1(targets.shape)
        if has_classes and columns > 1:
            if kind is None and columns == 2 and self.name not in SYMMETRIC and "average" not in self.args:
                raise TaskError(
                    f"task.metric: {self.name} of two classes ({shapes}) is that of class 1 or the mean over both. "
                    f"Say which: {{name: {self.name}, args: {{task: binary}}}} or "
                    f"{{name: {self.name}, args: {{average: macro}}}}."
                )
            found = kind or "multiclass"
            if found == "multilabel" or (found == "binary" and columns != 2):
                raise self._refused(f"task: {found} does not fit {shapes}", "task: multiclass")
            return Layout(found, columns)
        if _squeezed(scores.shape) != _squeezed(targets.shape):
            raise TaskError(
                f"task.metric: {self.name} needs outputs of shape (n, n_classes, ...) and targets (n, ...), or both of "
                f"one shape, got {shapes}. A regression's metrics are mae, mse, rmse, r2 and mape."
            )
        if kind == "multiclass":
            raise self._refused(f"task: multiclass needs a column for each class, got {shapes}", "task: binary")
        if columns == 1:
            return Layout("binary", 2)
        if kind is None and scores.ndim > 2:
            raise self._refused(f"{shapes} may be binary, or have {columns} labels", "task: binary", "task: multilabel")
        return Layout(kind or "multilabel", 2 if kind == "binary" else columns)

    def _refused(self, why: str, *ways: str) -> TaskError:
        out = " or ".join(f"{{name: {self.name}, args: {{{way}}}}}" for way in ways)
        return TaskError(f"task.metric: {self.name}: {why}. Write {out}.")

    def make(self, layout: Layout, *, checks: bool = False) -> "torchmetrics.Metric":
        """Make torchmetrics' object.

        Args:
            checks: Whether it checks its arguments.

        Raises:
            TaskError: If it takes no such arguments.
        """
        import torchmetrics.classification

        kind: Any = getattr(torchmetrics.classification, layout.kind.capitalize() + CLASSIFICATION[self.name], None)
        if kind is None:
            raise TaskError(f"task.metric: {self.name} is not defined for several labels. Name another metric.")
        size: dict[str, Any] = {}
        if layout.kind != "binary":
            size["num_classes" if layout.kind == "multiclass" else "num_labels"] = layout.n
        given = {key: value for key, value in self.args.items() if key != "threshold"}
        wrong = [key for key, value in size.items() if given.get(key, value) != value]
        if wrong:
            raise TaskError(
                f"task.metric: {self.name}: {wrong[0]} is {given[wrong[0]]}, but the outputs have {layout.n} columns."
            )
        made: torchmetrics.Metric = _made(self.name, kind, size | given | {"validate_args": checks})
        return made

    def predictions(self, layout: Layout, scores: torch.Tensor, shape: torch.Size) -> dict[str, torch.Tensor]:
        """Return what torchmetrics gets: classes, or scores in [0, 1] for a metric that ranks.

        Args:
            scores: As the network returns them.
            shape: Of the targets.

        Returns:
            One tensor; or two where it decides between two classes: ``logits``, which are positive above 0, and
            ``probabilities``, above 0.5.
        """
        scores = scores.double()
        if layout.kind == "multiclass":
            if self.name in RANKING:
                return {"": _as_probabilities(scores)}
            top_k = self.args.get("top_k", 1)
            return {"": scores if top_k > 1 else scores.argmax(dim=1)}
        if layout.kind == "binary" and scores.numel() == 2 * math.prod(shape):
            return self._decided(scores[:, 1] - scores[:, 0], shape, only_logits=True)
        return self._decided(scores, shape, only_logits=False)

    def _decided(self, scores: torch.Tensor, shape: torch.Size, *, only_logits: bool) -> dict[str, torch.Tensor]:
        scores = scores.reshape(shape)
        if self.name in RANKING:
            # Any map that rises gives the same ranks; this one keeps large logits apart, where a sigmoid gives 1.
            return {"": scores.sigmoid() if "thresholds" in self.args else 0.5 + 0.5 * scores / (1 + scores.abs())}
        threshold = float(self.args.get("threshold", 0.5))
        found = {"logits": (scores > math.log(threshold / (1 - threshold))).long()}
        return found if only_logits else found | {"probabilities": (scores > threshold).long()}


class _RunningClassification:
    """A classification metric over one split.

    Whether the network gives logits or probabilities shows when all of the split was seen: probabilities are all in
    [0, 1]. So where that matters, both are accumulated.
    """

    def __init__(self, metric: ClassificationMetric, n_examples: int, *, with_error: bool) -> None:
        self._metric, self._n_examples, self._with_error = metric, n_examples, with_error
        self._running: dict[str, RunningTorchMetric] = {}
        self._layout: Layout | None = None
        self._are_probabilities = True

    def update(self, outputs: Any, targets: torch.Tensor) -> None:
        metric, scores = self._metric, logits_of(outputs)
        layout = self._layout or metric.layout(outputs, targets)
        if self._layout is None:
            self._layout = layout
        if layout.kind == "multiclass":
            targets = targets.reshape(_without_1(scores.shape))
        predictions = metric.predictions(layout, scores, targets.shape)
        self._are_probabilities &= bool(((scores >= 0) & (scores <= 1)).all())
        for name, part in predictions.items():
            if name not in self._running:
                made = metric.make(layout)
                self._running[name] = RunningTorchMetric(made, self._n_examples, with_error=self._with_error)
            self._running[name].update(part, targets.long())

    def compute(self) -> float:
        return self._chosen.compute()

    def standard_error(self) -> float | None:
        return self._chosen.standard_error()

    @property
    def _chosen(self) -> RunningTorchMetric:
        if "probabilities" in self._running and self._are_probabilities:
            return self._running["probabilities"]
        return next(iter(self._running.values()))


def _without_1(shape: torch.Size) -> torch.Size:
    """A shape without its dimension 1, that of the classes."""
    return shape[:1] + shape[2:]


def _as_probabilities(scores: torch.Tensor) -> torch.Tensor:
    """Class probabilities of class scores along dimension 1; rows that are probabilities stay."""
    are = (scores >= 0).all(dim=1, keepdim=True) & ((scores.sum(dim=1, keepdim=True) - 1).abs() < 1e-5)
    return torch.where(are, scores, scores.softmax(dim=1))


def _made(name: str, kind: Callable[..., Any], args: Mapping[str, Any]) -> Any:
    try:
        return kind(**args)
    except (TypeError, ValueError) as error:
        raise TaskError(f"task.metric: {name}: {error}") from error
