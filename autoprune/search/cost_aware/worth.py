"""What candidates are worth: the hypervolume that each is expected to add, from the finished trials on."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autoprune.search.cost_aware.candidates import Candidate, Candidates
from autoprune.search.cost_aware.costs import KnownCosts
from autoprune.search.cost_aware.features import Features
from autoprune.search.cost_aware.history import History, Node
from autoprune.search.cost_aware.improvement import Staircase
from autoprune.search.cost_aware.surrogate import MAX_CONDITIONED, WEIGHTS, AccuracyModel
from autoprune.trial import Scalar

Floats = npt.NDArray[np.float64]


class Worth:
    """Predicts accuracies and weighs them with the costs, which are known.

    Args:
        history: With at least one finished trial.
        front: Its non-dominated networks; a candidate improves on these and on the dense one.
        floor: Accuracy below which a network is worth nothing.
    """

    def __init__(
        self,
        draws: Candidates,
        costs: KnownCosts,
        features: Features,
        history: History,
        front: Sequence[Node],
        floor: float,
    ) -> None:
        self._draws, self._costs, self._features = draws, costs, features
        nodes = list(history.nodes.values())
        costs.learn(nodes)
        self._model = AccuracyModel(history.root.accuracy, np.array([node.accuracy for node in nodes]))
        nodes = nodes[-MAX_CONDITIONED:]
        parents = [history.get(node.parent) for node in nodes]
        trained = [(node.widths, node.epochs, node.params) for node in nodes]
        self._model.fit(self._rows(parents, costs.measured(nodes), *zip(*trained, strict=True)))
        best = [history.root, *front]
        self._stairs = Staircase(costs.axes(costs.measured(best)), np.array([node.accuracy for node in best]), floor)

    def of(self, candidates: Sequence[Candidate]) -> Floats:
        """Expected hypervolume improvement of each candidate, shape ``(n_candidates,)``."""
        blocks: list[Collection[str]] = [self._draws.removed_blocks(each) for each in candidates]
        shares = self._costs.shares(np.stack([each.widths for each in candidates]), blocks)
        trained = [(each.widths, self._draws.epochs_of(each), each.training) for each in candidates]
        rows = self._rows([each.parent for each in candidates], shares, *zip(*trained, strict=True))
        return self._stairs.expected_improvement(self._costs.axes(shares), self._model.predict(rows), WEIGHTS)

    def _rows(
        self,
        parents: Sequence[Node],
        shares: Floats,
        widths: Sequence[npt.NDArray[np.int64]],
        epochs: Sequence[int],
        training: Sequence[Mapping[str, Scalar]],
    ) -> Floats:
        levels = self._model.level(np.array([parent.accuracy for parent in parents]))
        wide = self._costs.measured(parents)
        return self._features(parents, np.stack(widths), shares, wide, epochs, training, levels)
