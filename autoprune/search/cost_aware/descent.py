"""How the epochs of a descent from the widest network to the smallest are shared out: how many steps, and how long."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FIRST_SHARE = 0.8
"""Share of the dense cost that the first step leaves."""

MAX_STEPS = 12

BEND = 1.25
"""Above 1, the steps grow on the log axis of the cost: wide networks matter more on a linear one."""

LONGER = 2.0
"""How many times their epochs the smallest networks are trained longer than the widest: they have more to recover."""


@dataclass(frozen=True)
class Descent:
    """Networks of falling cost, each to be trained from the one before.

    Attributes:
        top: Share of the dense cost that no network may pass.
        shares: Of the dense cost, to be left after each step, falling; shape ``(n_steps,)``.
        epochs: Of each step's training, shape ``(n_steps,)``.
    """

    top: float
    shares: Floats
    epochs: Floats
    _steps: dict[float, list[tuple[float, float]]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def plan(cls, top: float, smallest: float, budget: float, shortest: int, longest: int) -> "Descent":
        """Spend epochs: the more there are, the more steps, and the longer each.

        Args:
            top, smallest: Shares of the dense cost at the two ends.
            budget: Epochs of all steps together.
            shortest, longest: Epochs that a step may be trained for.
        """
        wanted = budget / shortest if shortest == longest else min(1.5 * math.sqrt(budget), budget / shortest)
        n_steps = min(max(round(wanted), 1), MAX_STEPS)
        first = max(min(FIRST_SHARE, top), smallest)
        places = np.linspace(0.0, 1.0, n_steps) ** BEND
        weights = 1.0 + LONGER * np.minimum(2 * places, 1.0)
        epochs = np.clip(budget * weights / weights.sum(), shortest, longest)
        return cls(max(top, first), first * (smallest / first) ** places, epochs)

    def steps(self, offset: float) -> list[tuple[float, float]]:
        """Share and epochs of each step, in a descent whose shares lie between those of this one.

        Args:
            offset: How far each step is moved towards the wider one before it, in [0, 1). The smallest network stays.
        """
        if offset not in self._steps:
            self._steps[offset] = self._moved(offset)
        return self._steps[offset]

    def _moved(self, offset: float) -> list[tuple[float, float]]:
        indices = np.arange(1, len(self.shares) + 1) - offset
        if offset > 0:
            indices = np.append(indices, len(self.shares))
        wider = np.arange(len(self.shares) + 1)
        shares = np.exp(np.interp(indices, wider, np.log(np.append(self.top, self.shares))))
        epochs = np.interp(indices, wider, np.append(self.epochs[0], self.epochs))
        return list(zip(shares.tolist(), epochs.tolist(), strict=True))
