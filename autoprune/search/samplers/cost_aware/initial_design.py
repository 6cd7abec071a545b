"""The initial design: a descent from the widest network to the smallest; then each of its networks is trained on."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoprune.search.samplers.cost_aware.history import History, Node

Floats = npt.NDArray[np.float64]

FIRST_SHARE = 0.8
"""Share of the dense cost that the first step leaves."""

MAX_STEPS = 12

BEND = 1.25
"""Above 1, the steps grow on the log axis of the cost: wide networks matter more on a linear one."""

AGAIN = 2.0
"""How many times its epochs a network of the descent is trained on for, when all are there."""

LONGER = 2.0
"""How many times their epochs the smallest networks are trained longer than the widest: they have more to recover."""

RATES = (0.5, 0.2, 0.0)
"""Learning rates of the first step, as places on their range's axis from 0 to 1. They are tried in turn until one does
no harm, or is no better than the one before: trained from inherited weights with a schedule that settles, networks come
out better at high rates, until they break."""

LAST_RATE = 0.9
"""The rate of the last step, to which those between rise: narrow networks bear higher ones than wide networks."""

HARM = 0.02
"""Share of the dense accuracy whose loss at the first step means that the rate was too high."""


@dataclass(frozen=True)
class Descent:
    """Networks of falling cost, each to be trained from the one before.

    Attributes:
        shares: Of the dense cost, to be left after each step, falling; shape ``(n_steps,)``.
        epochs: Of each step's training, shape ``(n_steps,)``.
        again: Epochs that each network is trained on for afterwards, shape ``(n_steps,)``.
    """

    shares: Floats
    epochs: Floats
    again: Floats

    @classmethod
    def plan(cls, top: float, smallest: float, budget: float, shortest: int, longest: int) -> "Descent":
        """Spend epochs: the more there are, the more steps, and the longer each.

        Args:
            top: Share of the dense cost that no network may pass.
            smallest: Share that the last step leaves.
            budget: Epochs of all steps together.
            shortest, longest: Epochs that a step may be trained for.
        """
        wanted = budget / shortest if shortest == longest else min(1.5 * math.sqrt(budget), budget / shortest)
        n_steps = min(max(round(wanted), 1), MAX_STEPS)
        first = max(min(FIRST_SHARE, top), smallest)
        places = np.linspace(0.0, 1.0, n_steps) ** BEND
        weights = 1.0 + LONGER * np.minimum(2 * places, 1.0)
        epochs = np.clip(budget * weights / weights.sum(), shortest, longest)
        return cls(first * (smallest / first) ** places, epochs, np.clip(AGAIN * epochs, shortest, longest))

    @property
    def steps(self) -> list[tuple[float, float]]:
        """Share and epochs of each step."""
        return list(zip(self.shares.tolist(), self.epochs.tolist(), strict=True))

    def epochs_at(self, share: float) -> float:
        """Epochs that the descent would train a network of a cost for."""
        return float(np.interp(-math.log(share), -np.log(self.shares), self.epochs))


@dataclass(frozen=True)
class Step:
    """A trial of the descent, cut and trained as a person would try first.

    Attributes:
        share: Of the dense cost, that the network should have; ``None`` leaves the parent's widths.
        epochs: To train it for.
        origin: What it is, for the record.
        parent: Where it starts.
        rate: Place of the learning rate on its axis; ``None`` leaves the parent's.
    """

    share: float | None
    epochs: float
    origin: str
    parent: Node
    rate: float | None = None


def next_step(
    descent: Descent, history: History, floor: float, has_model: Callable[[int], bool], *, rated: bool
) -> Step | None:
    """The next of the first trials; ``None`` when there is none, or it has to wait for one that runs.

    Networks whose weights were dropped, as others have beaten them, are not trained on.

    Args:
        floor: Accuracy below which a network is worth nothing: there the descent ends.
        has_model: Whether a trial's network is kept.
        rated: Whether a learning rate is searched.
    """
    taken = history.origins()
    steps = _steps(descent, history, floor, has_model, RATES if rated else RATES[:1])
    return next((step for step in steps if step.origin not in taken), None)


def _steps(
    descent: Descent, history: History, floor: float, has_model: Callable[[int], bool], rates: Sequence[float]
) -> Iterator[Step]:
    """The steps up to the one that runs now."""
    by_origin = {node.origin: node for node in history.nodes.values()}
    running = {pending.origin for pending in history.running.values()}
    root = history.root
    (share, epochs), *later = descent.steps
    reached: list[Node | None] = []
    best: Node | None = None
    first = rates[0]
    for rate in rates:
        origin = f"rate {rate:g}"
        yield Step(share, epochs, origin, root, rate)
        if origin in running:
            return
        tried = by_origin.get(origin)
        if tried is not None and best is not None and tried.accuracy <= best.accuracy:
            break
        if tried is not None:
            best, first = tried, rate
        if best is not None and best.accuracy >= root.accuracy - HARM * abs(root.accuracy):
            break
    parent = best or root
    reached.append(best)
    for number, (share, epochs) in enumerate(later, start=1):
        origin = f"descent {number}"
        start = parent if parent.number is None or has_model(parent.number) else root
        yield Step(share, epochs, origin, start, first + (LAST_RATE - first) * number / len(later))
        node = by_origin.get(origin)
        if origin in running:
            return
        reached.append(node)
        if node is not None and node.accuracy < floor:
            break
        parent = node or parent
    for number, (node, epochs) in reversed(list(enumerate(zip(reached, descent.again.tolist(), strict=False)))):
        if node is not None and node.number is not None and node.accuracy >= floor and has_model(node.number):
            yield Step(None, epochs, f"again {number}", node)
