"""Neuron pruning: channels, neurons and heads leave, with a ratio for every group."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from autoprune.config.constraints import COSTS
from autoprune.config.dimension import Dimension, Pick, Value, highest, value_of
from autoprune.config.pruning import NeuronSettings
from autoprune.pruning.channels.gradual import gradual_widths
from autoprune.pruning.methods._base import MethodInTrial, MethodSpace, PruningMethod, dimensions_among
from autoprune.pruning.plan import PruningPlan
from autoprune.trial import PruningConfig, Scalar, TrialResult

if TYPE_CHECKING:
    from torch import nn

    from autoprune.pruning.apply import Pruned

RATIO = "neuron.ratio."
"""Prefix of the dimensions that widths are given by."""


class NeuronSpace(MethodSpace):
    """A ratio for every group, and the criterion that picks the channels.

    Args:
        settings: The space file's section; ``None`` leaves all groups as they are.
        ratios: Group -> its ratio, for the groups that are pruned.

    Attributes:
        ratios: As given.
    """

    def __init__(self, settings: NeuronSettings | None, ratios: Mapping[str, Value], plan: PruningPlan) -> None:
        self.ratios = ratios
        self._groups = {group.name: group for group in plan.groups}
        self._dense = plan.group_widths
        self._round_to = settings.round_to if settings else 1
        self._criterion = value_of("neuron.criterion", settings.criterion) if settings and ratios else "l2"
        self._reconstruct = settings.reconstruct if settings and ratios else False

    def dimensions(self) -> list[Dimension]:
        return dimensions_among([self._criterion, *self.ratios.values()])

    def suggest(self, pick: Pick) -> dict[str, Any]:
        widths = {group: self.width(group, float(pick(ratio))) for group, ratio in self.ratios.items()}
        return {"widths": widths, "criterion": str(pick(self._criterion)), "reconstruct": self._reconstruct}

    def smallest(self) -> dict[str, Any]:
        return {"widths": {group: self.width(group, highest(ratio)) for group, ratio in self.ratios.items()}}

    def structure(self, pruning: PruningConfig) -> dict[str, int]:
        return {**self._dense, **pruning.widths}

    def values_of(self, pruning: PruningConfig, asked: Mapping[str, Scalar]) -> Iterator[tuple[str, Scalar]]:
        yield "neuron.criterion", pruning.criterion
        widths = self.structure(pruning)
        for group, ratio in self.ratios.items():
            if isinstance(ratio, Dimension):
                before = asked.get(ratio.name)
                same = before is not None and ratio.holds(before) and self.width(group, float(before)) == widths[group]
                value = before if same else self.ratios_of(group).get(widths[group])
                if value is not None:
                    yield ratio.name, value

    def width(self, group: str, ratio: float) -> int:
        """Channels that a group keeps at a ratio: a multiple of ``round_to``, at least one, at most all channels."""
        return self._groups[group].width_at(1.0 - ratio, self._round_to)

    def ratios_of(self, group: str) -> dict[int, Scalar]:
        """Every width that a group can be given, widest first, with a ratio that gives it."""
        ratio = self.ratios.get(group, 0.0)
        if not isinstance(ratio, Dimension):
            return {self.width(group, float(ratio)): ratio}
        if isinstance(ratio.domain, list) or ratio.domain.step is not None:
            ratios = ratio.every_value()
        else:
            dense, step = self._groups[group].width, self._groups[group].multiple_of(self._round_to)
            widest, narrowest = (self.width(group, float(end)) for end in (ratio.domain.low, ratio.domain.high))
            ratios = [ratio.nearest(1 - width / dense) for width in (*range(widest, narrowest, -step), narrowest)]
        return {self.width(group, float(value)): value for value in sorted(ratios)}


class NeuronInTrial(MethodInTrial):
    """The widths of a trial's network."""

    def __init__(self, pruning: PruningConfig, parent_widths: Mapping[str, int]) -> None:
        self._pruning, self._parent_widths = pruning, parent_widths
        self._kept: dict[str, int] = {}

    def at(self, share: float) -> dict[str, Any]:
        final = self._pruning
        widths = gradual_widths(self._parent_widths, final.widths, share)
        return {"widths": widths, "criterion": final.criterion, "reconstruct": final.reconstruct}

    def apply(self, pruned: "Pruned", pruning: PruningConfig) -> None:
        self._kept = pruned.widths

    def outcome(self) -> dict[str, Any]:
        return {"kept": self._kept}

    def state_dict(self) -> dict[str, Any]:
        return {"kept": dict(self._kept)}

    def load_state_dict(self, model: "nn.Module", state: Mapping[str, Any]) -> None:
        self._kept = state["kept"]


class NeuronPruning(PruningMethod):
    """Remove channels, neurons and heads."""

    name = "neuron"
    lowers = frozenset(COSTS)

    def prunable(self, plan: PruningPlan) -> tuple[str, ...]:
        return tuple(group.name for group in plan.groups)

    def space(self, settings: NeuronSettings | None, plan: PruningPlan, problems: list[str]) -> NeuronSpace:
        return NeuronSpace(settings, self._ratios(settings, plan, problems), plan)

    def in_trial(self, pruning: PruningConfig, parent_widths: Mapping[str, int]) -> NeuronInTrial:
        return NeuronInTrial(pruning, parent_widths)

    def can_follow(
        self, parent: TrialResult, parent_pruning: PruningConfig, pruning: PruningConfig, plan: PruningPlan
    ) -> bool:
        gone = tuple(f"{block}." for block in pruning.removed_blocks)
        return all(
            group.name.startswith(gone) or parent.kept[group.name] >= pruning.widths.get(group.name, group.width)
            for group in plan.groups
        )
