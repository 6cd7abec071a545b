"""What a study has learned so far, as arrays: one node for every trained network that a trial may start from."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial

from autoprune.study.dense_reference import DenseReference
from autoprune.study.pareto import non_dominated_mask
from autoprune.study.records import ORIGIN, config_of, curve_of, result_of
from autoprune.trial import Scalar, TrialConfig, TrialResult

Floats = npt.NDArray[np.float64]
Widths = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Node:
    """A trained network: the dense one, or a finished trial's.

    Attributes:
        number: The trial's; ``None`` is the dense network.
        widths: Channels of every group, shape ``(n_groups,)``; at least 1, also where a removed block took them all.
        params: The parameters it was suggested with; empty for the dense network.
        epochs: Epochs of its own.
        lineage: Epochs of its own and of all its ancestors.
        origin: What proposed it.
    """

    number: int | None
    widths: Widths
    accuracy: float
    costs: Mapping[str, float]
    params: Mapping[str, Scalar]
    removed_blocks: tuple[str, ...]
    parent: int | None
    epochs: int
    lineage: int
    origin: str


@dataclass(frozen=True)
class Pending:
    """A trial that runs now, or that ended without a network; its fields are those of :class:`Node`."""

    params: Mapping[str, Scalar]
    parent: int | None
    origin: str
    widths: Widths
    removed_blocks: tuple[str, ...]
    epochs: int


@dataclass(frozen=True)
class Stopped:
    """A trial that was stopped before its last epoch, and the accuracy that it would have ended with.

    Attributes:
        trial: As it was meant, ``trial.epochs`` long.
        accuracy: After its last epoch, and what other trials gained from the same share of their epochs to the end.
    """

    number: int
    trial: Pending
    accuracy: float


def trial_key(parent: int | None, params: Mapping[str, Scalar]) -> int:
    """A hash of where a trial starts and of all its parameters, in any order."""
    return hash((parent, frozenset(params.items())))


def non_dominated(nodes: Sequence[Node], costs_of: Callable[[Sequence[Node]], Floats]) -> list[Node]:
    """The networks that no other beats, the latest of equals.

    Args:
        costs_of: What networks cost, shape ``(n_nodes, n_costs)``.
    """
    if not nodes:
        return []
    values = np.column_stack([[node.accuracy for node in nodes], costs_of(nodes)])
    mask = non_dominated_mask(values, ["maximize", *["minimize"] * (values.shape[1] - 1)])
    front = [node for node, keep in zip(nodes, mask, strict=True) if keep]
    return list(dict(zip(map(tuple, values[mask].tolist()), front, strict=True)).values())


class History:
    """The finished and the running trials of a study; an ended trial is read once.

    Args:
        widths: Group -> channels in the dense network.
    """

    def __init__(self, widths: Mapping[str, int], dense: DenseReference) -> None:
        self.groups = tuple(widths)
        whole = np.array(list(widths.values()), dtype=np.int64)
        self.root = Node(None, whole, dense.accuracy, dense.cost.figures(), {}, (), None, 0, 0, "dense")
        self.nodes: dict[int, Node] = {}
        self.ended: dict[int, Pending] = {}
        self.running: dict[int, Pending] = {}
        self._stopped: dict[int, tuple[Pending, list[float]]] = {}
        self._curves: dict[int, list[float]] = {}
        self._n_settled = 0
        self._tried: set[int] = set()
        self._n_weighed = 0
        self._front: list[Node] = []

    def refresh(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what has changed since the last call.

        Args:
            trials: All of the study, by number.
        """
        running: dict[int, Pending] = {}
        for trial in trials[self._n_settled :]:
            if trial.number in self.nodes or trial.number in self.ended:
                continue
            config = config_of(trial)
            if config is None:
                continue
            origin = str(trial.user_attrs.get(ORIGIN, ""))
            result = result_of(trial) if trial.state.is_finished() else None
            if result is not None and result.state == "finished":
                self.nodes[trial.number] = self._node(config, result, origin)
                self._curves[trial.number] = curve_of(trial)
                self._tried.add(trial_key(config.parent, config.params))
            elif trial.state.is_finished():
                pending = self.ended[trial.number] = self._pending(config, origin)
                curve = curve_of(trial)
                if result is not None and result.state == "stopped" and curve:
                    self._stopped[trial.number] = pending, curve
                self._tried.add(trial_key(config.parent, config.params))
            else:
                running[trial.number] = self._pending(config, origin)
        self.running = running
        while self._n_settled < len(trials) and trials[self._n_settled].state.is_finished():
            self._n_settled += 1

    def get(self, number: int | None) -> Node:
        """The node of a finished trial, or the dense network's."""
        return self.root if number is None else self.nodes[number]

    def origins(self) -> set[str]:
        """What proposed the trials that have ended or run now."""
        everything: Iterable[Node | Pending] = (*self.nodes.values(), *self.ended.values(), *self.running.values())
        return {each.origin for each in everything}

    def tried(self) -> set[int]:
        """Keys, by :func:`trial_key`, of the trials that have ended or run now."""
        return self._tried | {trial_key(each.parent, each.params) for each in self.running.values()}

    def stopped(self) -> list[Stopped]:
        """The trials that were stopped, as far as the finished ones tell how they would have ended."""
        gains: dict[float, float | None] = {}  # trials are stopped after few different shares of their epochs
        found = []
        for number, (trial, curve) in self._stopped.items():
            share = len(curve) / trial.epochs
            if share not in gains:
                gains[share] = self._gain_after(share)
            gain = gains[share]
            if gain is not None:
                found.append(Stopped(number, trial, curve[-1] + gain))
        return found

    def _gain_after(self, share: float) -> float | None:
        """What the finished trials gained behind a share of their epochs, where schedules stand at the same place.

        It is the median; ``None`` if no trial tells.
        """
        gains = []
        for number, curve in self._curves.items():
            epoch = math.ceil(share * len(curve))
            if epoch < len(curve):
                gains.append(self.nodes[number].accuracy - curve[epoch - 1])
        return float(np.median(gains)) if gains else None

    def front(self, costs_of: Callable[[Sequence[Node]], Floats]) -> list[Node]:
        """The non-dominated trained networks, the latest of equals.

        What is dominated stays so; only networks that have come since the last call are weighed against the front.

        Args:
            costs_of: What networks cost, shape ``(n_nodes, n_costs)``; the same function in every call.
        """
        nodes = [*self._front, *itertools.islice(self.nodes.values(), self._n_weighed, None)]
        self._n_weighed = len(self.nodes)
        self._front = non_dominated(nodes, costs_of)
        return self._front

    def _node(self, config: TrialConfig, result: TrialResult, origin: str) -> Node:
        cost = result.cost
        assert cost is not None
        assert result.accuracy is not None
        costs = {name: getattr(cost, name) for name in ("params", "nonzero_params", "size_bytes", "macs", "flops")}
        return Node(
            number=result.number,
            widths=self._widths(result.kept),
            accuracy=result.accuracy,
            costs=costs if cost.latency_ms is None else costs | {"latency_ms": cost.latency_ms},
            params=config.params,
            removed_blocks=result.removed_blocks,
            parent=config.parent,
            epochs=result.epochs,
            lineage=result.epochs_lineage,
            origin=origin,
        )

    def _pending(self, config: TrialConfig, origin: str) -> Pending:
        pruning = config.pruning
        widths = self._widths(pruning.widths)
        return Pending(config.params, config.parent, origin, widths, pruning.removed_blocks, config.epochs)

    def _widths(self, named: Mapping[str, int]) -> Widths:
        """Channels of every group, shape ``(n_groups,)``; a group not named keeps all."""
        dense = zip(self.groups, self.root.widths.tolist(), strict=True)
        return np.array([max(1, named.get(group, width)) for group, width in dense], dtype=np.int64)
