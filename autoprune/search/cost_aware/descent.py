"""How the epochs of a descent from the widest network to the smallest are shared out: how many steps, and how long."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
