"""SearchSpec + PruningPlan -> suggest(optuna trial) -> TrialConfig."""

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import numpy as np
from optuna.trial import BaseTrial

from autoprune.errors import SpecError
from autoprune.pruning.plan import PruningPlan
from autoprune.schedules import BATCH_SIZE_SCHEDULES, LR_SCHEDULES
from autoprune.schedules.parameters import Kind
from autoprune.spec import Range, SearchSpec
from autoprune.spec.optimizers import OPTIMIZERS
from autoprune.trial import (
    OptimizerConfig,
    PruningConfig,
    Scalar,
    ScheduleConfig,
    TrialConfig,
    WeightPattern,
    WeightScope,
)

PATTERN_RATIO = 0.5
"""Share of the weights that the 2:4 pattern zeroes."""


@dataclass(frozen=True)
class Dimension:
    """One searched value: its name in the study, and the range or the choices it is taken from.

    Attributes:
        domain: A :class:`Range` or a list of choices.
        integer: Whether a range holds whole numbers only.
    """

    name: str
    domain: Range | list[Scalar]
    integer: bool = False

    def suggest(self, trial: BaseTrial) -> Scalar:
        """Ask Optuna for a value."""
        if isinstance(self.domain, list):
            return _scalar(trial.suggest_categorical(self.name, self.domain))
        low, high, step = self.domain.low, self.domain.high, self.domain.step
        if self.integer:
            return trial.suggest_int(self.name, int(low), int(high), step=int(step or 1), log=self.domain.log)
        return trial.suggest_float(self.name, float(low), float(high), step=step, log=self.domain.log)

    def middle(self) -> Scalar:
        """The value a person would try first: the first choice, or the middle of the range on its own axis."""
        if isinstance(self.domain, list):
            return self.domain[0]
        low, high = self.domain.low, self.domain.high
        return self.nearest(math.sqrt(low * high) if self.domain.log else (low + high) / 2)

    def nearest(self, value: float) -> Scalar:
        """The allowed value nearest to ``value``."""
        if isinstance(self.domain, list):
            return min(self.domain, key=lambda choice: abs(float(choice) - value))
        low, high = self.domain.low, self.domain.high
        step = self.domain.step or (1 if self.integer else None)
        inside = min(max(value, low), high)
        if step is not None:
            inside = min(low + step * round((inside - low) / step), high)
        return round(inside) if self.integer else float(inside)


Value = Scalar | Dimension
"""A fixed value, or a dimension that gives one."""


def _scalar(value: Any) -> Scalar:
    """A choice as Optuna gives it back, which is typed more widely than what was put in."""
    chosen: Scalar = value
    return chosen


def _value(name: str, raw: Any, *, integer: bool = False) -> Value:
    if isinstance(raw, Range):
        reachable = _ending_on_a_step(raw)
        return raw.low if raw.low == reachable.high else Dimension(name, reachable, integer)
    if isinstance(raw, list) and len(raw) > 1:
        return Dimension(name, raw, integer)
    scalar: Scalar = raw[0] if isinstance(raw, list) else raw
    return scalar


def _ending_on_a_step(domain: Range) -> Range:
    """The same range with ``high`` lowered to a value that is reached, worked out in decimals as Optuna does."""
    if domain.step is None:
        return domain
    low, high, step = (Decimal(str(number)) for number in (domain.low, domain.high, domain.step))
    rest = (high - low) % step
    return domain.model_copy(update={"high": float(high - rest)}) if rest else domain


@dataclass(frozen=True)
class _Kinds:
    """A choice among kinds, each with parameters of its own."""

    name: str
    kinds: Mapping[str, Mapping[str, Value]]

    def suggest(self, trial: BaseTrial) -> tuple[str, dict[str, Scalar]]:
        names = list(self.kinds)
        kind = names[0] if len(names) == 1 else str(trial.suggest_categorical(self.name, names))
        return kind, {key: _pick(value, trial) for key, value in self.kinds[kind].items()}


def _pick(value: Value, trial: BaseTrial) -> Scalar:
    return value.suggest(trial) if isinstance(value, Dimension) else value


def _kinds(name: str, sections: list[Any], tag: str, registry: Mapping[str, Kind]) -> _Kinds:
    kinds = {}
    for section in sections:
        kind = getattr(section, tag)
        kinds[kind] = {
            key: _value(f"{name}.{kind}.{key}", getattr(section, key), integer=parameter.type == "int")
            for key, parameter in registry[kind].params.items()
        }
    return _Kinds(name, kinds)


class SearchSpace:
    """All that a study searches over, for one network.

    Args:
        spec: The space file.
        plan: What of the network can be pruned.

    Raises:
        SpecError: If a layer pattern of the space file matches nothing in the plan.
    """

    def __init__(self, spec: SearchSpec, plan: PruningPlan) -> None:
        self.spec = spec
        self.plan = plan
        training = spec.training
        self._epochs = _value("epochs", training.epochs, integer=True)
        self._optimizer = _kinds("optimizer", training.optimizer, "name", OPTIMIZERS)
        self._lr = _kinds("lr_schedule", training.lr_schedule, "kind", LR_SCHEDULES)
        self._batch_size = _kinds("batch_size_schedule", training.batch_size_schedule, "kind", BATCH_SIZE_SCHEDULES)
        self._gradual = _value("gradual_pruning", training.gradual_pruning)
        neuron, layer, weight = spec.method("neuron"), spec.method("layer"), spec.method("weight")
        self._widths = plan.group_widths
        round_to = int(neuron.round_to) if neuron else 1
        self._multiples = {group.name: math.lcm(round_to, group.multiple) for group in plan.groups}
        problems: list[str] = []
        ratio_rules = self._rules(neuron, list(self._widths), problems)
        self._ratios = _per_layer("neuron", neuron, ratio_rules)
        self._criterion = _value("neuron.criterion", neuron.criterion) if self._ratios else "l2"
        block_rules = self._rules(layer, list(plan.block_names), problems)
        self._blocks = [name for name, rule in block_rules.items() if rule != "skip"]
        self._block_ratio = _value("layer.ratio", layer.ratio) if self._blocks else 0.0
        weight_rules = self._rules(weight, [name.removesuffix(".weight") for name in plan.weight_layers], problems)
        self._weight_ratios = _per_layer("weight", weight, weight_rules)
        self._pattern = _value("weight.pattern", weight.pattern) if self._weight_ratios else "none"
        self._scope = _value("weight.scope", weight.scope) if self._weight_ratios else "layer"
        self._global_ratio = _value("weight.ratio", weight.ratio) if self._weight_ratios else 0.0
        if problems:
            raise SpecError(problems)

    def dimensions(self) -> list[Dimension]:
        """Every dimension of the space, conditional ones included."""
        found: list[Dimension] = []
        for value in (self._epochs, self._gradual):
            found += [value] if isinstance(value, Dimension) else []
        for family in (self._optimizer, self._lr, self._batch_size):
            if len(family.kinds) > 1:
                found.append(Dimension(family.name, list(family.kinds)))
            found += [
                value for kind in family.kinds.values() for value in kind.values() if isinstance(value, Dimension)
            ]
        values = [self._criterion, *self._ratios.values(), self._block_ratio, self._pattern]
        if "none" in _possible(self._pattern):
            scopes = _possible(self._scope)
            values += [self._scope]
            values += self._weight_ratios.values() if "layer" in scopes else []
            values += [self._global_ratio] if scopes != ["layer"] else []
        return found + [value for value in values if isinstance(value, Dimension)]

    def suggest(self, trial: BaseTrial, seed: int) -> TrialConfig:
        """Ask for every value that applies, and build the trial's configuration (without its parent)."""
        epochs = int(_pick(self._epochs, trial))
        optimizer, optimizer_params = self._optimizer.suggest(trial)
        lr_kind, lr_params = self._lr.suggest(trial)
        batch_kind, batch_params = self._batch_size.suggest(trial)
        ratios = {group: float(_pick(ratio, trial)) for group, ratio in self._ratios.items()}
        criterion = str(_pick(self._criterion, trial))
        removed = self._removed_blocks(float(_pick(self._block_ratio, trial)))
        pattern = cast(WeightPattern, _pick(self._pattern, trial))
        scope = cast(WeightScope, _pick(self._scope, trial)) if pattern == "none" else "layer"
        weight_ratios = self._suggest_weight_ratios(trial, scope, pattern)
        pruning = PruningConfig(
            widths={group: self.width(group, ratio) for group, ratio in ratios.items()},
            criterion=criterion,
            removed_blocks=removed,
            weight_ratios={name: ratio for name, ratio in weight_ratios.items() if ratio > 0},
            weight_scope=scope,
            weight_pattern=pattern,
            gradual_share=float(_pick(self._gradual, trial)),
        )
        return TrialConfig(
            number=trial.number,
            seed=seed,
            epochs=epochs,
            optimizer=OptimizerConfig(optimizer, optimizer_params),
            lr_schedule=ScheduleConfig(lr_kind, lr_params),
            batch_size_schedule=ScheduleConfig(batch_kind, batch_params),
            pruning=pruning,
            params=dict(trial.params),
        )

    def width(self, group: str, ratio: float) -> int:
        """Channels that a group keeps at a ratio: a multiple of ``round_to``, at least one, at most all channels."""
        dense, multiple = self._widths[group], self._multiples[group]
        return min(dense, max(multiple, multiple * round((1.0 - ratio) * dense / multiple)))

    def ladder(self, n_steps: int) -> dict[float, dict[str, Scalar]]:
        """Parameters of uniform candidates: one neuron ratio for all groups, all else at the middle of its range.

        Returns:
            Ratio -> parameters, for ``n_steps`` ratios evenly spaced up to the greatest that the space allows, without
            those whose network comes out as one before them.
        """
        ratios = [value for value in self._ratios.values() if isinstance(value, Dimension)]
        if not ratios:
            return {}
        steps: dict[float, dict[str, Scalar]] = {}
        seen: list[dict[str, int]] = []
        for ratio in np.linspace(0.0, max(map(_highest, ratios)), n_steps + 1)[1:]:
            params = self._uniform(float(ratio))
            widths = {
                group: self.width(group, float(params.get(f"neuron.ratio.{group}", 0.0))) for group in self._ratios
            }
            if widths not in seen:
                seen.append(widths)
                steps[round(float(ratio), 6)] = params
        return steps

    def smallest(self) -> PruningConfig:
        """The most pruned network that the space holds."""
        return PruningConfig(
            widths={group: self.width(group, _highest(ratio)) for group, ratio in self._ratios.items()},
            removed_blocks=self._removed_blocks(_highest(self._block_ratio)),
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

    def _uniform(self, ratio: float) -> dict[str, Scalar]:
        params: dict[str, Scalar] = {}
        for dimension in self.dimensions():
            if dimension.name.startswith("neuron.ratio."):
                params[dimension.name] = dimension.nearest(ratio)
            elif dimension.name in ("layer.ratio", "gradual_pruning") or dimension.name.startswith("weight.ratio"):
                params[dimension.name] = dimension.nearest(0.0)
            elif dimension.name == "weight.pattern":
                params[dimension.name] = "none"
            else:
                params[dimension.name] = dimension.middle()
        return params

    def _removed_blocks(self, ratio: float) -> tuple[str, ...]:
        return tuple(sorted(self._blocks[: round(ratio * len(self._blocks))]))

    def _suggest_weight_ratios(self, trial: BaseTrial, scope: str, pattern: str) -> dict[str, float]:
        if pattern != "none":
            return dict.fromkeys((f"{name}.weight" for name in self._weight_ratios), PATTERN_RATIO)
        if scope != "layer":
            ratio = float(_pick(self._global_ratio, trial))
            return {f"{name}.weight": ratio for name in self._weight_ratios}
        return {f"{name}.weight": float(_pick(ratio, trial)) for name, ratio in self._weight_ratios.items()}


def _possible(value: Value) -> list[Scalar]:
    """The choices of a value that is chosen by name."""
    if isinstance(value, Dimension):
        return value.domain if isinstance(value.domain, list) else []
    return [value]


def _highest(value: Value) -> float:
    if isinstance(value, Dimension):
        return float(max(value.domain) if isinstance(value.domain, list) else value.domain.high)
    return float(value)


def _per_layer(method: str, block: Any, rules: Mapping[str, Any]) -> dict[str, Value]:
    """The ratio of every layer that is not skipped."""
    return {
        name: _value(f"{method}.ratio.{name}", block.ratio if rule is None else block.ratio_under(rule))
        for name, rule in rules.items()
        if rule != "skip"
    }
