"""Where a trial of another space, over the same network, lies in this one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial

from autoprune.config.dimension import Dimension
from autoprune.search.space.dimension import distribution
from autoprune.search.space.space import DISTILLATION, TEMPERATURE, SearchSpace
from autoprune.trial import PruningConfig, Scalar, TrialConfig

RATIO = "neuron.ratio."
"""Prefix of the dimensions that widths are given by."""

WEIGHT_RATIO = "weight.ratio."


@dataclass(frozen=True)
class Location:
    """What a space has to say to a trial's configuration.

    Attributes:
        params: Values of those of the space's dimensions in which it lies, by name.
        distributions: Of these dimensions.
        whole: Whether the space could have suggested the very configuration.
        cut: Whether it could have suggested a network of the same structure: widths, blocks and single weights.
        depth: Whether it could have suggested one with the same blocks and single weights.
    """

    params: dict[str, Scalar]
    distributions: dict[str, BaseDistribution]
    whole: bool
    cut: bool
    depth: bool


def locate(space: SearchSpace, config: TrialConfig) -> Location:
    """Find the values that would make a space suggest a configuration, as far as there are any.

    Args:
        config: Of a network with the same groups and blocks; its ``params`` may be those of another space.
    """
    dimensions = space.dimensions()
    wanted = dict(_values(space, dimensions, config))
    held = [each for each in dimensions if each.name in wanted and each.holds(wanted[each.name])]
    params = {each.name: wanted[each.name] for each in held}
    trial = FixedTrial({each.name: params.get(each.name, space.first_guess(each)) for each in dimensions})
    found = space.suggest(trial, config.seed)
    depth = _depth(found.pruning) == _depth(config.pruning)
    cut = depth and _widths(space, found.pruning) == _widths(space, config.pruning)
    whole = cut and _training(found) == _training(config)
    if whole:
        params = {name: params[name] for name in trial.params}
    distributions = {each.name: distribution(each) for each in dimensions if each.name in params}
    return Location(params, distributions, whole, cut, depth)


def _values(space: SearchSpace, dimensions: list[Dimension], config: TrialConfig) -> Iterator[tuple[str, Any]]:
    """The configuration as values by the names that a space gives them, for all that it might search."""
    pruning = config.pruning
    yield "epochs", config.epochs
    yield "gradual_pruning", pruning.gradual_share
    yield DISTILLATION, config.distillation.weight
    yield TEMPERATURE, config.distillation.temperature
    for family, kind, params in (
        ("optimizer", config.optimizer.name, config.optimizer.params),
        ("lr_schedule", config.lr_schedule.kind, config.lr_schedule.params),
        ("batch_size_schedule", config.batch_size_schedule.kind, config.batch_size_schedule.params),
    ):
        yield family, kind
        yield from ((f"{family}.{kind}.{name}", value) for name, value in params.items())
    yield "neuron.criterion", pruning.criterion
    yield "weight.pattern", pruning.weight_pattern
    yield "weight.scope", pruning.weight_scope
    yield "weight.ratio", max(pruning.weight_ratios.values(), default=0.0)
    for dimension in dimensions:
        name, asked = dimension.name, config.params.get(dimension.name)
        if name.startswith(WEIGHT_RATIO):
            yield name, pruning.weight_ratios.get(f"{name.removeprefix(WEIGHT_RATIO)}.weight", 0.0)
        elif name.startswith(RATIO):
            group = name.removeprefix(RATIO)
            width = _widths(space, pruning)[group]
            same = asked is not None and dimension.holds(asked) and space.width(group, float(asked)) == width
            ratio = asked if same else space.ratios_of(group).get(width)
            if ratio is not None:
                yield name, ratio
        elif name == "layer.ratio":
            ratios = [dimension.at(float(place)) for place in np.linspace(0.0, 1.0, 101)]
            ratios = [asked, *ratios] if asked is not None and dimension.holds(asked) else ratios
            removed = set(pruning.removed_blocks)
            yield from [(name, ratio) for ratio in ratios if set(space.removed_blocks(float(ratio))) == removed][:1]


def _widths(space: SearchSpace, pruning: PruningConfig) -> dict[str, int]:
    return {**space.plan.group_widths, **pruning.widths}


def _depth(pruning: PruningConfig) -> tuple[Any, ...]:
    weights: Mapping[str, float] = pruning.weight_ratios
    return set(pruning.removed_blocks), weights, (pruning.weight_scope, pruning.weight_pattern) if weights else None


def _training(config: TrialConfig) -> tuple[Any, ...]:
    return (
        config.epochs,
        config.optimizer,
        config.lr_schedule,
        config.batch_size_schedule,
        config.pruning.criterion,
        config.pruning.reconstruct,
        config.pruning.gradual_share,
        config.distillation,
    )
