"""Metrics that are accumulated over a split, and the standard error that the split's size gives their value."""

import math
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

from autoprune.errors import TaskError
from autoprune.network.outputs import join_outputs, map_outputs
from autoprune.tasks.task import Accumulator, Metric

if TYPE_CHECKING:
    import torchmetrics

N_GROUPS = 20
"""Groups of examples that the jackknife leaves out in turn."""

Values = tuple[torch.Tensor, torch.Tensor | None]
"""A value for each element, shape ``(n, ...)``, and which of them count, of the same shape; ``None`` counts all."""


class Accumulated(Protocol):
    """A metric that is accumulated batch by batch."""

    def start(self, n_examples: int, *, with_error: bool) -> Accumulator:
        """Begin a split of so many examples.

        Args:
            with_error: Whether the standard error will be asked for.
        """
        ...


def start(metric: Metric, n_examples: int, *, with_error: bool = False) -> Accumulator:
    """Begin to judge a split by a task's metric, in constant memory if it is one that accumulates.

    Args:
        metric: A plain function gets the outputs and the targets of the whole split, joined.
        n_examples: Examples of the split.
        with_error: Whether :meth:`Accumulator.standard_error` will be asked for.
    """
    if hasattr(metric, "start"):
        return cast(Accumulated, metric).start(n_examples, with_error=with_error)
    return _WholeSplit(metric, n_examples)


def as_number(value: Any) -> float:
    """Turn what a metric returns into a float.

    Raises:
        TaskError: If it is no number, nor a tensor or an array of one element.
    """
    if isinstance(value, bool | int | float):
        return float(value)
    shape = getattr(value, "shape", None)
    if hasattr(value, "item") and shape is not None and math.prod(shape) == 1:
        return float(value.item())
    got = f"a {type(value).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
    raise TaskError(f"task.metric must return a number, or a tensor of one element, got {got}.")


class ExampleMean:
    """A metric that is a mean over the elements of all examples, such as accuracy.

    Args:
        values: (outputs, targets) -> the value of each element.
        transform: Applied to the mean, with its derivative for the standard error; such as a square root.
    """

    def __init__(
        self,
        values: Callable[[Any, torch.Tensor], Values],
        transform: tuple[Callable[[float], float], Callable[[float], float]] | None = None,
    ) -> None:
        self._values, self._transform = values, transform

    def __call__(self, outputs: Any, targets: torch.Tensor) -> float:
        """Return the metric of these examples alone."""
        accumulator = self.start(len(targets), with_error=False)
        accumulator.update(outputs, targets)
        return accumulator.compute()

    def start(self, n_examples: int, *, with_error: bool) -> Accumulator:
        """Begin a split; the standard error costs nothing here."""
        return _RunningMean(self._values, self._transform)


class _RunningMean:
    """Sums over examples: of the values, of how many elements count, and of the products of both."""

    def __init__(
        self,
        values: Callable[[Any, torch.Tensor], Values],
        transform: tuple[Callable[[float], float], Callable[[float], float]] | None,
    ) -> None:
        self._values, self._transform = values, transform
        self._n, self._sum, self._weight = 0, 0.0, 0.0
        self._squares = torch.zeros(3, dtype=torch.float64)  # value * value, value * weight, weight * weight

    def update(self, outputs: Any, targets: torch.Tensor) -> None:
        values, counts = self._values(outputs, targets)
        values = values.double()
        counts = torch.ones_like(values) if counts is None else counts.double()
        sums = (values * counts).reshape(len(values), -1).sum(dim=1)  # (n,)
        weights = counts.reshape(len(values), -1).sum(dim=1)  # (n,)
        self._n += len(values)
        self._sum += float(sums.sum())
        self._weight += float(weights.sum())
        self._squares += torch.stack([sums @ sums, sums @ weights, weights @ weights])

    @property
    def _mean(self) -> float:
        if not self._weight:
            return math.nan
        # In float32, as torch's own mean of the elements is.
        return float(torch.tensor(self._sum) / torch.tensor(self._weight))

    def compute(self) -> float:
        return self._mean if self._transform is None else self._transform[0](self._mean)

    def standard_error(self) -> float | None:
        """Return the standard error, by the ratio estimator where examples have different numbers of elements.

        Source:
            Cochran 1977, Sampling Techniques, section 2.11.
        """
        if self._n < 2 or not self._weight:
            return None
        mean = self._sum / self._weight
        squares, products, weights = self._squares.tolist()
        variance = max(0.0, squares - 2 * mean * products + mean**2 * weights) * self._n / (self._n - 1)
        error = math.sqrt(variance) / self._weight
        if self._transform is not None:
            error *= abs(self._transform[1](mean)) if mean else 0.0
        return _known(error)


class _WholeSplit:
    """Keeps all outputs and targets for a function that must see them together."""

    def __init__(self, function: Metric, n_examples: int) -> None:
        self._function, self._n_examples = function, n_examples
        self._outputs: list[Any] = []
        self._targets: list[torch.Tensor] = []

    def update(self, outputs: Any, targets: torch.Tensor) -> None:
        self._outputs.append(outputs)
        self._targets.append(targets)

    def compute(self) -> float:
        return as_number(self._function(*self._joined()))

    def standard_error(self) -> float | None:
        """Return the jackknife's standard error; ``None`` where the function fails on a part of the split."""
        outputs, targets = self._joined()
        groups = _groups(self._n_examples)

        def without(group: int) -> float:
            kept = (groups != group).nonzero().squeeze(1)
            return as_number(self._function(_rows(outputs, kept), targets[kept]))

        return _jackknife(without, int(groups.max()) + 1)

    def _joined(self) -> tuple[Any, torch.Tensor]:
        if len(self._outputs) > 1:
            self._outputs, self._targets = [join_outputs(self._outputs)], [torch.cat(self._targets)]
        return join_outputs(self._outputs), self._targets[0]


class TorchMetric:
    """A metric of torchmetrics, accumulated batch by batch.

    Args:
        metric: As the user made it; it is copied for each split.
    """

    def __init__(self, metric: "torchmetrics.Metric") -> None:
        self._metric = metric

    def __call__(self, outputs: Any, targets: torch.Tensor) -> float:
        """Return the metric of these examples alone."""
        accumulator = self.start(len(targets), with_error=False)
        accumulator.update(outputs, targets)
        return accumulator.compute()

    def start(self, n_examples: int, *, with_error: bool) -> Accumulator:
        """Begin a split."""
        return RunningTorchMetric(self._metric, n_examples, with_error=with_error)


class RunningTorchMetric:
    """A metric of torchmetrics over one split, and over groups of its examples if the standard error is wanted."""

    def __init__(self, metric: "torchmetrics.Metric", n_examples: int, *, with_error: bool) -> None:
        self._whole = metric.clone()
        self._whole.reset()
        self._assigned = _groups(n_examples) if with_error else None
        self._parts: dict[int, torchmetrics.Metric] = {}
        self._n_done = 0

    def update(self, outputs: Any, targets: torch.Tensor) -> None:
        """Take in a batch, on the CPU."""
        outputs = getattr(outputs, "logits", outputs)
        self._whole.update(outputs, targets)
        if self._assigned is None:
            return
        assigned = self._assigned[self._n_done : self._n_done + len(targets)]  # (n,)
        self._n_done += len(targets)
        for group in sorted(set(assigned.tolist())):
            if group not in self._parts:
                self._parts[group] = self._whole.clone()
                self._parts[group].reset()
            chosen = (assigned == group).nonzero().squeeze(1)
            self._parts[group].update(_rows(outputs, chosen), targets[chosen])

    def compute(self) -> float:
        """Return the metric; NaN where torchmetrics warns that it has no meaning, as AUROC of one class has none."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            value = as_number(self._whole.compute())
        undefined = any(re.match(r"No (positive|negative) samples", str(each.message)) for each in told)
        return math.nan if undefined else value

    def standard_error(self) -> float | None:
        """Return the jackknife's standard error.

        ``None`` where the metric's states can't be merged, or torchmetrics warns of a part of the split.
        """

        def without(group: int) -> float:
            first, *others = [part for number, part in self._parts.items() if number != group]
            merged = first.clone()
            for part in others:
                merged.merge_state(part)
            return as_number(merged.compute())

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return _jackknife(without, len(self._parts))


def _rows(outputs: Any, indices: torch.Tensor) -> Any:
    """Return some examples of a network's outputs, by index, shape ``(n,)``."""
    return map_outputs(lambda tensor: tensor[indices] if tensor.dim() else tensor, outputs, lambda cache: None)


def _groups(n_examples: int) -> torch.Tensor:
    """Return the group of each example, shape ``(n_examples,)``: dealt out in turn, in an order drawn with a seed."""
    order = torch.randperm(n_examples, generator=torch.Generator().manual_seed(0))
    return order % min(N_GROUPS, n_examples)


def _jackknife(without: Callable[[int], float], n_groups: int) -> float | None:
    """Return the delete-a-group jackknife's standard error; ``None`` if a part of the split has no value.

    Args:
        without: Group -> the metric of all examples but the group's.

    Source:
        Kott 2001, The Delete-a-Group Jackknife, Journal of Official Statistics 17(4).
    """
    if n_groups < 2:
        return None
    try:
        values = torch.tensor([without(group) for group in range(n_groups)], dtype=torch.float64)
    except Exception:  # the user's code on fewer examples than it expects
        return None
    return _known(math.sqrt((n_groups - 1) / n_groups * float((values - values.mean()).square().sum())))


def _known(error: float) -> float | None:
    return error if math.isfinite(error) else None
