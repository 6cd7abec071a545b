"""SearchConfig + PruningPlan -> suggest(optuna trial) -> TrialConfig."""

import fnmatch
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from optuna.trial import BaseTrial

from autoprune.config import SearchConfig
from autoprune.config.dimension import Dimension, Value, ends, highest, value_of
from autoprune.config.optimizers import OPTIMIZERS
from autoprune.errors import ConfigError
from autoprune.pruning.plan import PruningPlan
from autoprune.search.space.dimension import kinds_of, pick
from autoprune.training.schedules import BATCH_SIZE_SCHEDULES, LR_SCHEDULES
from autoprune.trial import (
    DistillationConfig,
    OptimizerConfig,
    PruningConfig,
    Scalar,
    ScheduleConfig,
    TrialConfig,
    WeightPattern,
    WeightScope,
)

SETTLING = ("one_cycle", "cosine", "polynomial", "exponential", "step")
"""Learning-rate schedules that end low, the first to try first."""

DISTILLATION, TEMPERATURE = "distillation.weight", "distillation.temperature"
"""Names of the dimensions of distillation."""

PATTERN_RATIO = 0.5
"""Share of the weights that the 2:4 pattern zeroes."""


class SearchSpace:
    """All that a study searches over, for one network.

    Args:
        spec: The space file.
        plan: What of the network can be pruned.

    Raises:
        ConfigError: If a layer pattern of the space file matches nothing in the plan.
    """

    def __init__(self, spec: SearchConfig, plan: PruningPlan) -> None:
        self.spec = spec
        self.plan = plan
        training = spec.training
        self._epochs = value_of("epochs", training.epochs, integer=True)
        self._optimizer = kinds_of("optimizer", training.optimizer, "name", OPTIMIZERS)
        self._lr = kinds_of("lr_schedule", training.lr_schedule, "kind", LR_SCHEDULES)
        self._batch_size = kinds_of("batch_size_schedule", training.batch_size_schedule, "kind", BATCH_SIZE_SCHEDULES)
        self._gradual = value_of("gradual_pruning", training.gradual_pruning)
        self._distillation = value_of(DISTILLATION, training.distillation.weight)
        self._temperature = value_of(TEMPERATURE, training.distillation.temperature) if self._distillation else 0.0
        neuron, layer, weight = spec.method("neuron"), spec.method("layer"), spec.method("weight")
        self._groups = {group.name: group for group in plan.groups}
        problems: list[str] = []
        ratio_rules = self._rules(neuron, list(self._groups), problems)
        self._ratios = _per_layer("neuron", neuron, ratio_rules)
        self._criterion = value_of("neuron.criterion", neuron.criterion) if self._ratios else "l2"
        self._reconstruct = neuron.reconstruct if self._ratios else False
        block_rules = self._rules(layer, list(plan.block_names), problems)
        self._blocks = [name for name, rule in block_rules.items() if rule != "skip"]
        self._block_ratio = value_of("layer.ratio", layer.ratio) if self._blocks else 0.0
        weight_rules = self._rules(weight, [name.removesuffix(".weight") for name in plan.weight_layers], problems)
        self._weight_ratios = _per_layer("weight", weight, weight_rules)
        self._pattern = value_of("weight.pattern", weight.pattern) if self._weight_ratios else "none"
        self._scope = value_of("weight.scope", weight.scope) if self._weight_ratios else "layer"
        self._global_ratio = value_of("weight.ratio", weight.ratio) if self._weight_ratios else 0.0
        if problems:
            raise ConfigError(problems)

    def dimensions(self) -> list[Dimension]:
        """Every dimension of the space, conditional ones included."""
        found: list[Dimension] = []
        for value in (self._epochs, self._gradual, self._distillation, self._temperature):
            found += [value] if isinstance(value, Dimension) else []
        for family in (self._optimizer, self._lr, self._batch_size):
            if len(family.kinds) > 1:
                found.append(Dimension(family.name, list(family.kinds)))
            found += [
                value for kind in family.kinds.values() for value in kind.values() if isinstance(value, Dimension)
            ]
        values = [self._criterion, *self._ratios.values(), self._block_ratio, self._pattern]
        if "none" in ends(self._pattern):
            scopes = ends(self._scope)
            values += [self._scope]
            values += self._weight_ratios.values() if "layer" in scopes else []
            values += [self._global_ratio] if scopes != ["layer"] else []
        return found + [value for value in values if isinstance(value, Dimension)]

    def suggest(self, trial: BaseTrial, seed: int) -> TrialConfig:
        """Ask for every value that applies, and build the trial's configuration (without its parent)."""
        epochs = int(pick(self._epochs, trial))
        optimizer, optimizer_params = self._optimizer.suggest(trial)
        lr_kind, lr_params = self._lr.suggest(trial)
        batch_kind, batch_params = self._batch_size.suggest(trial)
        distillation = self._suggest_distillation(trial)
        ratios = {group: float(pick(ratio, trial)) for group, ratio in self._ratios.items()}
        criterion = str(pick(self._criterion, trial))
        removed = self.removed_blocks(float(pick(self._block_ratio, trial)))
        pattern = cast(WeightPattern, pick(self._pattern, trial))
        scope = cast(WeightScope, pick(self._scope, trial)) if pattern == "none" else "layer"
        weight_ratios = self._suggest_weight_ratios(trial, scope, pattern)
        pruning = PruningConfig(
            widths={group: self.width(group, ratio) for group, ratio in ratios.items()},
            criterion=criterion,
            reconstruct=self._reconstruct,
            removed_blocks=removed,
            weight_ratios={name: ratio for name, ratio in weight_ratios.items() if ratio > 0},
            weight_scope=scope,
            weight_pattern=pattern,
            gradual_share=float(pick(self._gradual, trial)),
        )
        return TrialConfig(
            run=trial.number,
            seed=seed,
            epochs=epochs,
            optimizer=OptimizerConfig(optimizer, optimizer_params),
            lr_schedule=ScheduleConfig(lr_kind, lr_params),
            batch_size_schedule=ScheduleConfig(batch_kind, batch_params),
            pruning=pruning,
            distillation=distillation,
            params=dict(trial.params),
        )

    def width(self, group: str, ratio: float) -> int:
        """Channels that a group keeps at a ratio: a multiple of ``round_to``, at least one, at most all channels."""
        return self._groups[group].width_at(1.0 - ratio, self.spec.round_to)

    def ratios_of(self, group: str) -> dict[int, Scalar]:
        """Every width that a group can be given, widest first, with a ratio that gives it."""
        ratio = self._ratios.get(group, 0.0)
        if not isinstance(ratio, Dimension):
            return {self.width(group, float(ratio)): ratio}
        if isinstance(ratio.domain, list) or ratio.domain.step is not None:
            ratios = ratio.every_value()
        else:
            dense, step = self._groups[group].width, self._groups[group].multiple_of(self.spec.round_to)
            widest, narrowest = (self.width(group, float(end)) for end in (ratio.domain.low, ratio.domain.high))
            ratios = [ratio.nearest(1 - width / dense) for width in (*range(widest, narrowest, -step), narrowest)]
        return {self.width(group, float(value)): value for value in sorted(ratios)}

    def applies(self, name: str, params: Mapping[str, Scalar]) -> bool:
        """Whether a dimension is asked for when the others have these values."""
        for family in (self._optimizer, self._lr, self._batch_size):
            if name.startswith(f"{family.name}.") and len(family.kinds) > 1:
                return name.startswith(f"{family.name}.{params[family.name]}.")
        if name == TEMPERATURE:
            weight = params.get(DISTILLATION, self._distillation)
            return isinstance(weight, Dimension) or float(weight) > 0
        if name == "weight.scope" or name.startswith("weight.ratio"):
            if params.get("weight.pattern", self._pattern) != "none":
                return False
            per_layer = params.get("weight.scope", self._scope) == "layer"
            return name == "weight.scope" or per_layer == (name != "weight.ratio")
        return True

    def ladder(self, n_steps: int) -> dict[float, dict[str, Scalar]]:
        """Parameters of uniform candidates: one neuron ratio for all groups, all else as :meth:`first_guess` has it.

        Returns:
            Ratio -> parameters, for ``n_steps`` ratios evenly spaced up to the greatest that the space allows, without
            those whose network comes out as one before them.
        """
        ratios = [value for value in self._ratios.values() if isinstance(value, Dimension)]
        if not ratios:
            return {}
        steps: dict[float, dict[str, Scalar]] = {}
        seen: list[dict[str, int]] = []
        for ratio in np.linspace(0.0, max(map(highest, ratios)), n_steps + 1)[1:]:
            params = self._uniform(float(ratio))
            widths = {
                group: self.width(group, float(params.get(f"neuron.ratio.{group}", 0.0))) for group in self._ratios
            }
            if widths not in seen:
                seen.append(widths)
                steps[round(float(ratio), 6)] = params
        return steps

    @property
    def epochs_range(self) -> tuple[int, int]:
        """The fewest and the most epochs of a trial; the same where they are not searched."""
        epochs = [int(value) for value in ends(self._epochs)]
        return min(epochs), max(epochs)

    def removed_blocks(self, ratio: float | None = None) -> tuple[str, ...]:
        """The blocks that are removed at a share of them, the least important first; ``None`` is the fixed share."""
        if ratio is None:
            ratio = 0.0 if isinstance(self._block_ratio, Dimension) else float(self._block_ratio)
        return tuple(sorted(self._blocks[: round(ratio * len(self._blocks))]))

    def smallest(self) -> PruningConfig:
        """The most pruned network that the space holds."""
        return PruningConfig(
            widths={group: self.width(group, highest(ratio)) for group, ratio in self._ratios.items()},
            removed_blocks=self.removed_blocks(highest(self._block_ratio)),
        )

    def _rules(self, block: Any, names: list[str], problems: list[str]) -> dict[str, Any]:
        """Layer name -> the last rule of a method's ``layers`` whose pattern matches it, or ``None``.

        A layer that can't be pruned anyway may be skipped.
        """
        if block is None:
            return {}
        rules: dict[str, Any] = dict.fromkeys(names)
        left_out = [item.module for item in self.plan.left_out]
        for pattern, rule in block.layers.items():
            matched = fnmatch.filter(names, pattern)
            if not matched and not (rule == "skip" and fnmatch.filter(left_out, pattern)):
                problems.append(
                    f"pruning ({block.method}).layers: '{pattern}' matches none of the layers that can be pruned: "
                    f"{', '.join(names) or 'there are none'}."
                )
            rules.update(dict.fromkeys(matched, rule))
        return rules

    def first_guess(self, dimension: Dimension) -> Scalar:
        """The value that a person would try first, without layer and weight pruning.

        The middle of a range and the first of several choices, but of learning-rate schedules the one that lets a short
        training settle, and as much distillation as there may be.
        """
        name, domain = dimension.name, dimension.domain
        if name in ("layer.ratio", "gradual_pruning") or name.startswith("weight.ratio"):
            return dimension.nearest(0.0)
        if name == "weight.pattern":
            return "none" if isinstance(domain, list) and "none" in domain else dimension.middle()
        if name == "lr_schedule" and isinstance(domain, list):
            return next((kind for kind in SETTLING if kind in domain), domain[0])
        if name == DISTILLATION:
            return dimension.nearest(highest(dimension))
        return dimension.middle()

    def _suggest_distillation(self, trial: BaseTrial) -> DistillationConfig:
        weight = float(pick(self._distillation, trial))
        return DistillationConfig(weight, float(pick(self._temperature, trial))) if weight else DistillationConfig()

    def _uniform(self, ratio: float) -> dict[str, Scalar]:
        return {
            dimension.name: dimension.nearest(ratio)
            if dimension.name.startswith("neuron.ratio.")
            else self.first_guess(dimension)
            for dimension in self.dimensions()
        }

    def _suggest_weight_ratios(self, trial: BaseTrial, scope: str, pattern: str) -> dict[str, float]:
        if pattern != "none":
            return dict.fromkeys((f"{name}.weight" for name in self._weight_ratios), PATTERN_RATIO)
        if scope != "layer":
            ratio = float(pick(self._global_ratio, trial))
            return {f"{name}.weight": ratio for name in self._weight_ratios}
        return {f"{name}.weight": float(pick(ratio, trial)) for name, ratio in self._weight_ratios.items()}


def _per_layer(method: str, block: Any, rules: Mapping[str, Any]) -> dict[str, Value]:
    """The ratio of every layer that is not skipped."""
    return {
        name: value_of(f"{method}.ratio.{name}", block.ratio if rule is None else block.ratio_under(rule))
        for name, rule in rules.items()
        if rule != "skip"
    }
