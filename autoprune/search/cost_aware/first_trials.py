"""The first trials: a few learning rates at one cut, then a descent in which every step starts from the one before."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from autoprune.search.cost_aware.candidates import Candidate, Candidates
from autoprune.search.cost_aware.cuts import Widths
from autoprune.search.cost_aware.history import History, Node

FIRST_SHARE = 0.6
"""Share of the dense cost at which the learning rates are tried and the descent begins, if no ceiling is lower."""

RATES = (0.5, 0.75, 0.25)
"""Learning rates tried first, as places on their range's axis from 0 to 1."""

STEP = 0.65
"""Share of the cost that a step of the descent keeps."""

N_SHARES = 50
"""Shares among which the greatest under the ceilings is sought."""

Allowed = npt.NDArray[np.bool_]

STRENGTH = 0.7
"""How strongly the descent follows the sensitivity map."""


class FirstTrials:
    """What is tried before there is anything to learn from.

    Args:
        n_trials: Trials of the whole study; at most a third of them are first trials.
        allowed: Whether widths are under all ceilings that are known beforehand, shape ``(n,)``.
    """

    def __init__(self, candidates: Candidates, n_trials: int, allowed: Callable[[Widths], Allowed]) -> None:
        self._candidates = candidates
        smallest = max(candidates.smallest_share, 1e-3)
        shares = np.geomspace(max(FIRST_SHARE, smallest), smallest, N_SHARES)
        under = allowed(candidates.cuts.at(shares, np.full(N_SHARES, STRENGTH)))
        self._first_share = float(shares[np.argmax(under)]) if under.any() else smallest
        n_steps = max(0, int(np.ceil(np.log(smallest / self._first_share) / np.log(STEP))))
        rated = any(dimension.name.endswith(".lr") for dimension in candidates.training)
        self._rates = RATES[: max(1, min(len(RATES), n_trials // 8))] if rated else RATES[:1]
        n_steps = max(0, min(n_steps, n_trials // 3 - len(self._rates)))
        self._shares = np.geomspace(self._first_share, smallest, n_steps + 1)[1:] if n_steps else np.zeros(0)

    def next(self, history: History, has_model: Callable[[int], bool]) -> Candidate | None:
        """The next of them; ``None`` when there is none, or it has to wait for one that runs."""
        taken = history.origins()
        rates = [f"rate {place:g}" for place in self._rates]
        for place, origin in zip(self._rates, rates, strict=True):
            if origin not in taken:
                return self._at(self._first_share, history.root, place, origin)
        before = rates
        for step, share in enumerate(self._shares, start=1):
            origin = f"descent {step}"
            if origin not in taken:
                if any(pending.origin in before for pending in history.running.values()):
                    return None
                finished = [
                    node for number, node in history.nodes.items() if node.origin in before and has_model(number)
                ]
                parent = max(finished, key=lambda node: node.accuracy, default=history.root)
                return self._at(float(share), parent, None, origin)
            before = [origin] if any(node.origin == origin for node in history.nodes.values()) else before
        return None

    def _at(self, share: float, parent: Node, rate: float | None, origin: str) -> Candidate:
        draws = self._candidates
        widths = draws.cuts.at(np.array([share]), np.array([STRENGTH]))[0]
        training = draws.first_guess() | {name: value for name, value in parent.params.items() if name in draws.names}
        if rate is not None:
            for dimension in draws.training:
                if dimension.name.endswith(".lr"):
                    training[dimension.name] = dimension.at(rate)
        return Candidate(parent, draws.cuts.no_wider(widths, parent.widths), training, origin)
