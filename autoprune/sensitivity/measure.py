"""Measuring sensitivity, one point at a time: cut one group of the dense network, recalibrate batch norm, judge."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn

from autoprune.network.call import Inputs
from autoprune.pruning.apply import prune
from autoprune.pruning.channels.criteria import needs_data
from autoprune.pruning.channels.importance import Calibration
from autoprune.pruning.plan import PruningPlan
from autoprune.sensitivity.map import SensitivityMap, SensitivityPoint
from autoprune.tasks.splits import TensorSplit
from autoprune.tasks.task import Loss, Task
from autoprune.training.batch_norm import has_running_statistics, recalibrate_on_batches
from autoprune.training.evaluation import evaluate
from autoprune.training.memory import with_fewer_at_once
from autoprune.trial import PruningConfig

KEPT_SHARES = (0.75, 0.5, 0.25, 0.1)
"""Shares of a group's channels that are kept: even steps, and the far end of the default range of ratios."""

N_EXAMPLES, N_RECALIBRATION = 2048, 512
"""Training examples that a cut network is judged on, and others that its batch norm is recalibrated on."""

BATCH = 64
"""Examples in one pass that recalibrates batch norm; one figure for all devices, so that it comes out the same."""


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
    """Measures single points; made once a process.

    Args:
        model: The trained dense network; it is not touched.
        plan: Its plan.
        judge: Gives the accuracy, higher is better, of a network in evaluation mode.
        example_inputs: Inputs on which each cut is proved.
        recalibrate: Adapts a cut network's batch norm, in place.
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

    def dense_accuracy(self) -> float:
        """The accuracy that the points compare with: of the dense network, recalibrated like a cut one."""
        return self._accuracy({})

    def point(self, group: str, width: int) -> SensitivityPoint:
        """Cut one group to a width and measure the accuracy.

        Raises:
            PruningError: If the group is unknown or can't have this width.
        """
        return SensitivityPoint(group, width, self._accuracy({group: width}))

    def _accuracy(self, widths: dict[str, int]) -> float:
        cut = prune(
            self._model,
            self.plan,
            PruningConfig(widths=widths, criterion=self._criterion),
            example_inputs=self._example_inputs,
            calibration=self._calibration,
            loss=self._loss,
            seed=self._seed,
        ).model.eval()
        self._recalibrate(cut)
        return float(self._judge(cut))


def task_meter(
    model: nn.Module,
    plan: PruningPlan,
    task: Task,
    device: torch.device | str = "cpu",
    *,
    criterion: str = "l2",
    n_examples: int = N_EXAMPLES,
    n_recalibration: int = N_RECALIBRATION,
    seed: int = 0,
) -> SensitivityMeter:
    """Make a meter that judges by the task's metric on training examples.

    Training and not validation examples: the search chooses by validation accuracy, and what it is told beforehand
    must not have been fitted to it. Nothing is lost by that: on CIFAR-10 with ResNet-20, drops measured on training and
    on validation examples rank the cuts alike (Spearman's correlation with those on test examples is 0.986 for both),
    only that the former are larger by a sixth. The examples are read once and stay in memory.

    Args:
        n_examples: Training examples to judge on, not augmented; all if there are fewer.
        n_recalibration: Training examples for batch norm and for criteria that need data, others than those judged on
            as far as there are any; 0 leaves batch norm alone.
        seed: Decides which examples are drawn.
    """
    train = task.data.train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    judged = TensorSplit(*train.batch(order[:n_examples]))
    rest = order[n_examples:] if len(order) >= n_examples + n_recalibration else order.flip(0)
    others = TensorSplit(*train.batch(rest[: max(1, n_recalibration)]))
    adapts = n_recalibration > 0 and has_running_statistics(model)

    def calibration() -> Iterator[tuple[Inputs, torch.Tensor]]:
        return (others.batch(part) for part in torch.split(torch.arange(len(others)), BATCH))

    def recalibrate(candidate: nn.Module) -> None:
        def attempt(n_at_once: int) -> None:
            parts = torch.split(torch.arange(len(others)), n_at_once)
            recalibrate_on_batches(candidate, (others.batch(part)[0] for part in parts), device)

        with_fewer_at_once(attempt, BATCH, device, "recalibrating batch norm")

    return SensitivityMeter(
        copy.deepcopy(model).to(device),
        plan,
        lambda candidate: evaluate(candidate, judged, task, device).accuracy,
        example_inputs=task.example_inputs(2),
        recalibrate=recalibrate if adapts else lambda model: None,
        criterion=criterion,
        calibration=calibration if needs_data(criterion) else None,
        loss=task.loss,
        seed=seed,
        examples_per_point=len(judged) + len(others) * (int(adapts) + int(needs_data(criterion))),
    )


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
    dense_accuracy = meter.dense_accuracy()
    found = []
    for group, width in points:
        found.append(meter.point(group, width))
        on_point(found[-1])
    return map_of(meter.plan, dense_accuracy, found, round_to, meter.examples_per_point * (1 + len(found)))


def map_of(
    plan: PruningPlan,
    dense_accuracy: float,
    points: Iterable[SensitivityPoint],
    round_to: int = 1,
    n_examples: int = 0,
) -> SensitivityMap:
    """Put points that were measured anywhere together into a map; arguments as in :class:`SensitivityMap`."""
    return SensitivityMap(
        dense_widths=plan.group_widths,
        dense_accuracy=dense_accuracy,
        points=tuple(points),
        multiples={group.name: group.multiple_of(round_to) for group in plan.groups},
        n_examples=n_examples,
    )
