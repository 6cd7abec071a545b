"""Layer pruning: whole residual blocks leave, the least important first."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autoprune.config.constraints import COSTS
from autoprune.config.dimension import Dimension, Pick, Value, highest, value_of
from autoprune.config.pruning import LayerSettings
from autoprune.pruning.methods._base import MethodInTrial, MethodSpace, PruningMethod, dimensions_among
from autoprune.pruning.plan import PruningPlan
from autoprune.trial import PruningConfig, Scalar, TrialResult

if TYPE_CHECKING:
    from torch import nn

    from autoprune.pruning.apply import Pruned


class LayerSpace(MethodSpace):
    """The share of the blocks that is removed.

    Args:
        ratio: The share.
        blocks: Those that may be removed, the least important first.
    """

    def __init__(self, ratio: Value, blocks: Sequence[str]) -> None:
        self._ratio, self._blocks = ratio, blocks

    def dimensions(self) -> list[Dimension]:
        return dimensions_among([self._ratio])

    def suggest(self, pick: Pick) -> dict[str, Any]:
        return {"removed_blocks": self.removed_blocks(float(pick(self._ratio)))}

    def smallest(self) -> dict[str, Any]:
        return {"removed_blocks": self.removed_blocks(highest(self._ratio))}

    def structure(self, pruning: PruningConfig) -> set[str]:
        return set(pruning.removed_blocks)

    def values_of(self, pruning: PruningConfig, asked: Mapping[str, Scalar]) -> Iterator[tuple[str, Scalar]]:
        if not isinstance(self._ratio, Dimension):
            return
        dimension, before = self._ratio, asked.get(self._ratio.name)
        ratios = [dimension.at(float(position)) for position in np.linspace(0.0, 1.0, 101)]
        ratios = [before, *ratios] if before is not None and dimension.holds(before) else ratios
        for ratio in ratios:
            if set(self.removed_blocks(float(ratio))) == set(pruning.removed_blocks):
                yield dimension.name, ratio
                return

    def first_guess(self, dimension: Dimension) -> Scalar:
        return dimension.nearest(0.0)

    def removed_blocks(self, ratio: float | None = None) -> tuple[str, ...]:
        """The blocks that are removed at a share of them; ``None`` is the fixed share."""
        if ratio is None:
            ratio = 0.0 if isinstance(self._ratio, Dimension) else float(self._ratio)
        return tuple(sorted(self._blocks[: round(ratio * len(self._blocks))]))


class LayerInTrial(MethodInTrial):
    """The blocks that a trial's network lacks; they leave at once, gradual pruning or not."""

    def __init__(self, pruning: PruningConfig) -> None:
        self._pruning = pruning
        self._removed: tuple[str, ...] = ()

    def at(self, share: float) -> dict[str, Any]:
        return {"removed_blocks": self._pruning.removed_blocks}

    def apply(self, pruned: "Pruned", pruning: PruningConfig) -> None:
        self._removed = pruned.removed_blocks

    def outcome(self) -> dict[str, Any]:
        return {"removed_blocks": self._removed}

    def state_dict(self) -> dict[str, Any]:
        return {"removed_blocks": list(self._removed)}

    def load_state_dict(self, model: "nn.Module", state: Mapping[str, Any]) -> None:
        self._removed = tuple(state["removed_blocks"])


class LayerPruning(PruningMethod):
    """Remove residual blocks."""

    name = "layer"
    lowers = frozenset(COSTS)

    def prunable(self, plan: PruningPlan) -> tuple[str, ...]:
        return plan.block_names

    def space(self, settings: LayerSettings | None, plan: PruningPlan, problems: list[str]) -> LayerSpace:
        blocks = [name for name, rule in self._rules(settings, plan, problems).items() if rule != "skip"]
        return LayerSpace(value_of("layer.ratio", settings.ratio) if settings and blocks else 0.0, blocks)

    def in_trial(self, pruning: PruningConfig, parent_widths: Mapping[str, int]) -> LayerInTrial:
        return LayerInTrial(pruning)

    def can_follow(
        self, parent: TrialResult, parent_pruning: PruningConfig, pruning: PruningConfig, plan: PruningPlan
    ) -> bool:
        return set(parent.removed_blocks) <= set(pruning.removed_blocks)
