"""Where a trial of another space, over the same network, lies in this one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial

from autoprune.search.space.dimension import distribution
from autoprune.search.space.space import DISTILLATION, TEMPERATURE, SearchSpace
from autoprune.trial import Scalar, TrialConfig


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
    wanted = dict(_values(space, config))
    held = [each for each in dimensions if each.name in wanted and each.holds(wanted[each.name])]
    params = {each.name: wanted[each.name] for each in held}
    trial = FixedTrial({each.name: params.get(each.name, space.first_guess(each)) for each in dimensions})
    found = space.suggest(trial, config.seed)
    same = {
        name: part.structure(found.pruning) == part.structure(config.pruning) for name, part in space.methods.items()
    }
    cut = all(same.values())
    depth = all(equal for name, equal in same.items() if name != "neuron")
    whole = cut and _training(found) == _training(config)
    if whole:
        params = {name: params[name] for name in trial.params}
    distributions = {each.name: distribution(each) for each in dimensions if each.name in params}
    return Location(params, distributions, whole, cut, depth)


def _values(space: SearchSpace, config: TrialConfig) -> Iterator[tuple[str, Any]]:
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
    for part in space.methods.values():
        yield from part.values_of(pruning, config.params)


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
