"""Measure sensitivity, one point at a time: prune one group of the dense network, recalibrate, evaluate."""

from collections.abc import Callable, Iterable, Sequence

from torch import nn

from autoprune.network.call import Inputs
from autoprune.pruning.apply import prune
from autoprune.pruning.channels.importance import Calibration
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.sensitivity.map import SensitivityMap, SensitivityPoint
from autoprune.tasks.task import Loss
from autoprune.trial import PruningConfig

KEPT_SHARES = (0.75, 0.5, 0.25, 0.1)
"""Shares of a group's channels that are kept: even steps, and the far end of the default range of ratios."""


def points_to_measure(
    plan: PruningPlan, kept_shares: Sequence[float] = KEPT_SHARES, round_to: int = 1
) -> list[tuple[str, int]]:
    """List the points that make a map: every group at several widths.

    Args:
        kept_shares: In (0, 1). Those that round to the same width are measured once, the dense width never.
        round_to: Widths are multiples of this, and of what each group asks for itself.

    Returns:
        Pairs of a group and a width, the groups in the plan's order, the widths descending.
    """
    return [
        (group.name, width)
        for group in plan.groups
        for width in sorted({group.width_at(share, round_to) for share in kept_shares} - {group.width}, reverse=True)
    ]


class SensitivityMeter:
    """Measure single points of a map; made once a process.

    Args:
        model: The trained dense network; it is not touched.
        plan: Its plan.
        judge: Gives the score, higher is better, of a network in evaluation mode.
        example_inputs: Inputs on which each pruned network is proved.
        recalibrate: Recalibrates a pruned network's batch norm, in place.
        criterion: Importance that decides which channels go.
        calibration: Batches for the criteria that need data.
        loss: Loss for ``taylor``.
        examples_per_point: Examples that go forward through a network for one point.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: PruningPlan,
        judge: Callable[[nn.Module], float],
        *,
        example_inputs: Inputs,
        recalibrate: Callable[[nn.Module], None] = lambda model: None,
        criterion: str = "l2",
        calibration: Calibration | None = None,
        loss: Loss | None = None,
        seed: int = 0,
        examples_per_point: int = 0,
    ) -> None:
        self.plan, self.examples_per_point = plan, examples_per_point
        self._model, self._judge, self._recalibrate = model, judge, recalibrate
        self._example_inputs, self._criterion, self._loss, self._seed = example_inputs, criterion, loss, seed
        self._calibration = calibration

    def measure_dense_score(self) -> float:
        """Measure the score that the points compare with: of the dense network, recalibrated like a pruned one."""
        return self._score({})

    def measure_point(self, group: str, width: int) -> SensitivityPoint:
        """Prune one group to a width and measure the score.

        Raises:
            PruningError: If the group is unknown or can't have this width.
        """
        return SensitivityPoint(group, width, self._score({group: width}))

    def _score(self, widths: dict[str, int]) -> float:
        pruned = prune(
            self._model,
            self.plan,
            PruningConfig(widths=widths, criterion=self._criterion),
            example_inputs=self._example_inputs,
            calibration=self._calibration,
            loss=self._loss,
            seed=self._seed,
        ).model.eval()
        self._recalibrate(pruned)
        return float(self._judge(pruned))


def measure_map(
    meter: SensitivityMeter,
    points: Iterable[tuple[str, int]],
    round_to: int = 1,
    on_point: Callable[[SensitivityPoint], None] = lambda point: None,
) -> SensitivityMap:
    """Measure points one after the other.

    Args:
        points: Pairs of a group and a width, as :func:`points_to_measure` gives them.
        round_to: As there; holds for the widths that the map proposes.
        on_point: Told of every point measured.
    """
    dense_score = meter.measure_dense_score()
    found = []
    for group, width in points:
        found.append(meter.measure_point(group, width))
        on_point(found[-1])
    return map_of(meter.plan, dense_score, found, round_to, meter.examples_per_point * (1 + len(found)))


def map_of(
    plan: PruningPlan,
    dense_score: float,
    points: Iterable[SensitivityPoint],
    round_to: int = 1,
    n_examples: int = 0,
) -> SensitivityMap:
    """Put points that were measured anywhere together into a map; arguments as in :class:`SensitivityMap`."""
    return SensitivityMap(
        dense_widths=plan.group_widths,
        dense_score=dense_score,
        points=tuple(points),
        multiples={group.name: group.multiple_of(round_to) for group in plan.groups},
        n_examples=n_examples,
    )
