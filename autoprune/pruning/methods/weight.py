"""Weight pruning: single weights are set to zero and kept there while training."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from autoprune.config.dimension import Dimension, Pick, Value, ends, highest, value_of
from autoprune.config.pruning import WeightSettings
from autoprune.pruning.channels.gradual import gradual_weight_ratios
from autoprune.pruning.methods._base import MethodInTrial, MethodSpace, PruningMethod, dimensions_among
from autoprune.pruning.plan import PruningPlan
from autoprune.trial import PruningConfig, Scalar, TrialResult, WeightPattern, WeightScope

if TYPE_CHECKING:
    from torch import nn

    from autoprune.pruning.apply import Pruned
    from autoprune.pruning.weights import WeightMasks

PATTERN_RATIO = 0.5
"""Share of the weights that the 2:4 pattern zeroes."""


class WeightSpace(MethodSpace):
    """The pattern of the zeros, and without one the scope and the ratios.

    Args:
        settings: The space file's section; ``None`` leaves all weights as they are.
        ratios: Layer -> its ratio in the scope ``layer``, for the layers that lose weights.
    """

    def __init__(self, settings: WeightSettings | None, ratios: Mapping[str, Value], plan: PruningPlan) -> None:
        self._ratios = ratios
        self._sizes = plan.weight_layers
        used = settings if ratios else None
        self._pattern = value_of("weight.pattern", used.pattern) if used else "none"
        self._scope = value_of("weight.scope", used.scope) if used else "layer"
        self._global_ratio = value_of("weight.ratio", used.ratio) if used else 0.0

    def dimensions(self) -> list[Dimension]:
        values = [self._pattern]
        if "none" in ends(self._pattern):
            scopes = ends(self._scope)
            values += [self._scope]
            values += self._ratios.values() if "layer" in scopes else []
            values += [self._global_ratio] if scopes != ["layer"] else []
        return dimensions_among(values)

    def suggest(self, pick: Pick) -> dict[str, Any]:
        pattern = cast(WeightPattern, pick(self._pattern))
        scope = cast(WeightScope, pick(self._scope)) if pattern == "none" else "layer"
        return self._fields(pattern, scope, lambda value: float(pick(value)))

    def smallest(self) -> dict[str, Any]:
        """Return the pattern, the scope and the ratios that zero most weights at the dense network's widths."""
        found = [
            self._fields(cast(WeightPattern, pattern), cast(WeightScope, scope), highest)
            for pattern in ends(self._pattern)
            for scope in (ends(self._scope) if pattern == "none" else ["layer"])
        ]
        return max(found, key=lambda each: sum(self._sizes[name] * r for name, r in each["weight_ratios"].items()))

    def _fields(self, pattern: WeightPattern, scope: WeightScope, of: Callable[[Value], float]) -> dict[str, Any]:
        if pattern != "none":
            ratios = dict.fromkeys(self._ratios, PATTERN_RATIO)
        elif scope != "layer":
            ratios = dict.fromkeys(self._ratios, of(self._global_ratio))
        else:
            ratios = {name: of(ratio) for name, ratio in self._ratios.items()}
        return {
            "weight_ratios": {f"{name}.weight": ratio for name, ratio in ratios.items() if ratio > 0},
            "weight_scope": scope,
            "weight_pattern": pattern,
        }

    def structure(self, pruning: PruningConfig) -> tuple[Any, ...]:
        ratios = pruning.weight_ratios
        return ratios, (pruning.weight_scope, pruning.weight_pattern) if ratios else None

    def values_of(self, pruning: PruningConfig, asked: Mapping[str, Scalar]) -> Iterator[tuple[str, Scalar]]:
        yield "weight.pattern", pruning.weight_pattern
        yield "weight.scope", pruning.weight_scope
        yield "weight.ratio", max(pruning.weight_ratios.values(), default=0.0)
        for layer in self._ratios:
            yield f"weight.ratio.{layer}", pruning.weight_ratios.get(f"{layer}.weight", 0.0)

    def applies(self, name: str, params: Mapping[str, Scalar]) -> bool:
        if name == "weight.pattern":
            return True
        if params.get("weight.pattern", self._pattern) != "none":
            return False
        per_layer = params.get("weight.scope", self._scope) == "layer"
        return name == "weight.scope" or per_layer == (name != "weight.ratio")

    def first_guess(self, dimension: Dimension) -> Scalar:
        if dimension.name.startswith("weight.ratio"):
            return dimension.nearest(0.0)
        if dimension.name == "weight.pattern" and "none" in ends(dimension):
            return "none"
        return dimension.middle()


class WeightInTrial(MethodInTrial):
    """The masks of a trial's network."""

    def __init__(self, pruning: PruningConfig) -> None:
        self._pruning = pruning
        self._masks: WeightMasks | None = None
        self._parent_ratios: dict[str, float] = {}

    def begin_gradually(self, model: "nn.Module") -> None:
        self._masks = None
        self._parent_ratios = _zero_shares(model, self._pruning.weight_ratios)

    def at(self, share: float) -> dict[str, Any]:
        final = self._pruning
        return {
            "weight_ratios": gradual_weight_ratios(self._parent_ratios, final.weight_ratios, share),
            "weight_scope": final.weight_scope,
            "weight_pattern": final.weight_pattern,
        }

    def apply(self, pruned: "Pruned", pruning: PruningConfig) -> None:
        from autoprune.pruning.weights import WeightMasks  # loads torch

        self._masks = (
            WeightMasks(pruned.model, pruning.weight_ratios, pruning.weight_scope, pruning.weight_pattern)
            if pruning.weight_ratios
            else None
        )
        self.after_step()

    def after_step(self) -> None:
        if self._masks is not None:
            self._masks.apply_()

    def left_dense(self, model: "nn.Module") -> tuple[str, ...]:
        """Return the parameters that were to lose weights and have no mask, as the pattern does not fit them."""
        masks = self._masks.masks if self._masks else {}
        present = dict(model.named_parameters(remove_duplicate=False))
        return tuple(name for name in self._pruning.weight_ratios if name in present and name not in masks)

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self._masks.masks if self._masks else {}, "parent_weight_ratios": self._parent_ratios}

    def load_state_dict(self, model: "nn.Module", state: Mapping[str, Any]) -> None:
        from autoprune.pruning.weights import WeightMasks  # loads torch

        if state["masks"]:
            self._masks = WeightMasks.from_masks(model, state["masks"])
        self._parent_ratios = state["parent_weight_ratios"]


class WeightPruning(PruningMethod):
    """Set single weights to zero. The network keeps its shape, and so its FLOPs and its latency."""

    name = "weight"
    lowers = frozenset({"nonzero_params", "size_bytes"})

    def prunable(self, plan: PruningPlan) -> tuple[str, ...]:
        return tuple(name.removesuffix(".weight") for name in plan.weight_layers)

    def space(self, settings: WeightSettings | None, plan: PruningPlan, problems: list[str]) -> WeightSpace:
        return WeightSpace(settings, self._ratios(settings, plan, problems), plan)

    def in_trial(self, pruning: PruningConfig, parent_widths: Mapping[str, int]) -> WeightInTrial:
        return WeightInTrial(pruning)

    def can_follow(
        self, parent: TrialResult, parent_pruning: PruningConfig, pruning: PruningConfig, plan: PruningPlan
    ) -> bool:
        before = parent_pruning.weight_ratios
        if any(ratio > pruning.weight_ratios.get(name, 0.0) for name, ratio in before.items()):
            return False
        if before and parent_pruning.weight_scope not in ("layer", pruning.weight_scope):
            return False  # ranked together, single parameters may have lost more than their ratios
        # zeros that fell anywhere are not those of a pattern
        return not (before and parent_pruning.weight_pattern == "none" != pruning.weight_pattern)


def _zero_shares(model: "nn.Module", at_most: Mapping[str, float]) -> dict[str, float]:
    """Parameter name -> share of its single weights that are zero, for the parameters named in ``at_most``."""
    return {
        name: min(at_most[name], float((parameter == 0).float().mean()))
        for name, parameter in model.named_parameters()
        if name in at_most
    }
