"""What a method is, and the ways of spending epochs that several share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from autoprune.trial import ScheduleConfig
from benchmarks.search_quality.lab import Lab

Widths = Mapping[str, int]
"""Group -> channels to keep."""

RATES = (0.003, 0.01, 0.03, 0.1)
"""Learning rates that a careful person tries first."""

N_BUDGETS = 12
"""Networks of a ladder with long training."""

T = TypeVar("T")


class MethodUnavailableError(Exception):
    """A package that the method needs is not there."""


@dataclass(frozen=True)
class Method:
    """A way to spend the epochs.

    Attributes:
        run: Trains networks in the lab until the epochs are spent or it has no use for more.
        space: What it changes in the space file.
    """

    run: Callable[[Lab], None]
    space: Mapping[str, Any] = field(default_factory=dict)


def one_cycle(lr: float) -> ScheduleConfig:
    """The one schedule of all baselines: SGD's usual choice for a short training of known length."""
    return ScheduleConfig("one_cycle", {"lr": lr})


def best_rate(lab: Lab) -> float:
    """Try a few learning rates at half width, one trial each."""
    half = {group: lab.space.width(group, 0.5) for group in lab.groups}
    tried = {lr: lab.train(half, epochs=lab.trial_epochs, lr_schedule=one_cycle(lr)) for lr in RATES}
    return max(tried, key=lambda lr: tried[lr].accuracy or 0.0)


def uniform_steps(lab: Lab, n_steps: int) -> list[Widths]:
    """Networks with one ratio for all groups, the ratios evenly spaced; widest first, equal ones and dense left out."""
    steps = []
    for params in lab.space.ladder(n_steps).values():
        steps.append({group: lab.space.width(group, float(params[f"neuron.ratio.{group}"])) for group in lab.groups})
    return [widths for widths in steps if lab.macs_share(widths) < 1.0]


def train_budgets(
    lab: Lab, lr: float, steps: Sequence[T], decide: Callable[[T, int | None], Widths], epochs: int, inherit: bool
) -> None:
    """Train a network for every step.

    Args:
        steps: Widest first.
        decide: (step, parent) -> widths.
        epochs: Of all steps together, shared out evenly.
        inherit: Each starts from the one before; else each from the dense network, coarse to fine.
    """
    each, rest = divmod(epochs, len(steps))
    parent: int | None = None
    for position, step in enumerate(steps if inherit else coarse_to_fine(steps)):
        n = max(1, each + (position < rest))
        result = lab.train(decide(step, parent), epochs=n, lr_schedule=one_cycle(lr), parent=parent)
        parent = result.number if inherit else None


def coarse_to_fine(steps: Sequence[T]) -> Iterable[T]:
    """The same in another order, so that at any time those seen are spread evenly: the van der Corput sequence."""
    bits = max(1, (len(steps) - 1).bit_length())
    order = sorted(range(2**bits), key=lambda index: int(f"{index:0{bits}b}"[::-1], 2))
    return [steps[index] for index in order if index < len(steps)]
