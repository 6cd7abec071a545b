"""What a method is, and the ways of spending epochs that several share."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from autoprune.trial import ScheduleConfig
from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.settings import Setting, merged

Widths = Mapping[str, int]
"""Group -> channels to keep."""

RATES = (0.003, 0.01, 0.03, 0.1)
"""Learning rates that a careful person tries first."""

TRIED_RATIOS = (0.5, 0.8)
"""Uniform ratios that they are tried at: the best rate for a wide network can be far from that for a narrow one."""

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
        neuron: What it changes in the neuron method there.
        chooses_epochs: Whether it searches how long a trial trains, too.
    """

    run: Callable[[Lab], None]
    space: Mapping[str, Any] = field(default_factory=dict)
    neuron: Mapping[str, Any] = field(default_factory=dict)
    chooses_epochs: bool = False

    def changes(self, setting: Setting) -> dict[str, Any]:
        """What it changes in a setting's space file."""
        epochs = {"training": {"epochs": {"low": 1, "high": setting.longest}}} if self.chooses_epochs else {}
        methods = [merged(each, self.neuron) for each in setting.space({})["pruning"]]  # there is no other
        changed: dict[str, Any] = merged({"pruning": methods, **self.space}, epochs)
        return changed


def one_cycle(lr: float) -> ScheduleConfig:
    """The one schedule of all baselines: SGD's usual choice for a short training of known length."""
    return ScheduleConfig("one_cycle", {"lr": lr})


def tuned_rate(lab: Lab) -> Callable[[float], float]:
    """Try learning rates at half width, then from the best one upwards on a narrow network, one trial each.

    Validation loss decides: its differences are above the noise where those of accuracy are not.

    Returns:
        Share of the dense MACs -> rate of the network tried that is nearer on a log axis.
    """
    best: list[tuple[float, float]] = []
    rates: tuple[float, ...] = RATES
    for ratio in TRIED_RATIOS:
        widths = {group: lab.space.width(group, ratio) for group in lab.groups}
        losses = {lr: lab.train(widths, epochs=lab.trial_epochs, lr_schedule=one_cycle(lr)).loss for lr in rates}
        rate = min((math.inf if loss is None else loss, lr) for lr, loss in losses.items())[1]
        best.append((math.log(lab.macs_share(widths)), rate))
        rates = tuple(lr for lr in RATES if lr >= rate)
    return lambda share: min(best, key=lambda tried: abs(tried[0] - math.log(share)))[1]


def uniform_steps(lab: Lab, n_steps: int) -> list[Widths]:
    """Networks with one ratio for all groups, the ratios evenly spaced; widest first, equal ones and dense left out."""
    steps = []
    for params in lab.space.ladder(n_steps).values():
        steps.append({group: lab.space.width(group, float(params[f"neuron.ratio.{group}"])) for group in lab.groups})
    return [widths for widths in steps if lab.macs_share(widths) < 1.0]


def train_budgets(
    lab: Lab,
    rate: Callable[[float], float],
    steps: Sequence[T],
    decide: Callable[[T, int | None], Widths],
    epochs: int,
    inherit: bool,
) -> None:
    """Train a network for every step.

    Args:
        rate: Share of the dense MACs -> learning rate.
        steps: Widest first.
        decide: (step, parent) -> widths.
        epochs: Of all steps together, shared out evenly.
        inherit: Each starts from the one before; else each from the dense network, the narrowest first, coarse to fine.
    """
    each, rest = divmod(epochs, len(steps))
    parent: int | None = None
    for position, step in enumerate(steps if inherit else coarse_to_fine(steps[::-1])):
        n = max(1, each + (position < rest))
        widths = decide(step, parent)
        schedule = one_cycle(rate(lab.macs_share(widths)))
        result = lab.train(widths, epochs=n, lr_schedule=schedule, parent=parent)
        parent = result.number if inherit else None


def coarse_to_fine(steps: Sequence[T]) -> Iterable[T]:
    """The same in another order, so that at any time those seen are spread evenly: the van der Corput sequence."""
    bits = max(1, (len(steps) - 1).bit_length())
    order = sorted(range(2**bits), key=lambda index: int(f"{index:0{bits}b}"[::-1], 2))
    return [steps[index] for index in order if index < len(steps)]
