"""SearchConfig + PruningPlan -> suggest(optuna trial) -> TrialConfig."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.trial import BaseTrial

from autoprune.config import SearchConfig
from autoprune.config.dimension import Dimension, ends, highest, value_of
from autoprune.config.optimizers import OPTIMIZERS
from autoprune.errors import ConfigError
from autoprune.pruning.methods import PRUNING_METHODS, MethodSpace
from autoprune.pruning.methods.layer import LayerSpace
from autoprune.pruning.methods.neuron import RATIO, NeuronSpace
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
)

SETTLING = ("one_cycle", "cosine", "polynomial", "exponential", "step")
"""Learning-rate schedules that end low, the first to try first."""

DISTILLATION, TEMPERATURE = "distillation.weight", "distillation.temperature"
"""Names of the dimensions of distillation."""


class SearchSpace:
    """All that a study searches over, for one network.

    Args:
        spec: The space file.
        plan: What of the network can be pruned.

    Attributes:
        methods: Name -> part of the space, for every pruning method; one that the file does not use has no dimensions.

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
        problems: list[str] = []
        self.methods = {
            name: method.space(spec.method(name), plan, problems) for name, method in PRUNING_METHODS.items()
        }
        if problems:
            raise ConfigError(problems)
        parts = self.methods.values()
        self._neuron = next(part for part in parts if isinstance(part, NeuronSpace))
        self._layer = next(part for part in parts if isinstance(part, LayerSpace))

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
        return found + [dimension for part in self.methods.values() for dimension in part.dimensions()]

    def suggest(self, trial: BaseTrial, seed: int) -> TrialConfig:
        """Ask for every value that applies, and build the trial's configuration (without its parent)."""
        epochs = int(pick(self._epochs, trial))
        optimizer, optimizer_params = self._optimizer.suggest(trial)
        lr_kind, lr_params = self._lr.suggest(trial)
        batch_kind, batch_params = self._batch_size.suggest(trial)
        distillation = self._suggest_distillation(trial)
        pruned: dict[str, Any] = {}
        for part in self.methods.values():
            pruned |= part.suggest(lambda value: pick(value, trial))
        pruning = PruningConfig(**pruned, gradual_share=float(pick(self._gradual, trial)))
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
        return self._neuron.width(group, ratio)

    def ratios_of(self, group: str) -> dict[int, Scalar]:
        """Every width that a group can be given, widest first, with a ratio that gives it."""
        return self._neuron.ratios_of(group)

    def applies(self, name: str, params: Mapping[str, Scalar]) -> bool:
        """Whether a dimension is asked for when the others have these values."""
        for family in (self._optimizer, self._lr, self._batch_size):
            if name.startswith(f"{family.name}.") and len(family.kinds) > 1:
                return name.startswith(f"{family.name}.{params[family.name]}.")
        if name == TEMPERATURE:
            weight = params.get(DISTILLATION, self._distillation)
            return isinstance(weight, Dimension) or float(weight) > 0
        part = self._method_of(name)
        return part is None or part.applies(name, params)

    def ladder(self, n_steps: int) -> dict[float, dict[str, Scalar]]:
        """Parameters of uniform candidates: one neuron ratio for all groups, all else as :meth:`first_guess` has it.

        Returns:
            Ratio -> parameters, for ``n_steps`` ratios evenly spaced up to the greatest that the space allows, without
            those whose network comes out as one before them.
        """
        ratios = [value for value in self._neuron.ratios.values() if isinstance(value, Dimension)]
        if not ratios:
            return {}
        steps: dict[float, dict[str, Scalar]] = {}
        seen: list[dict[str, int]] = []
        for ratio in np.linspace(0.0, max(map(highest, ratios)), n_steps + 1)[1:]:
            params = self._uniform(float(ratio))
            widths = {
                group: self.width(group, float(params.get(f"{RATIO}{group}", 0.0))) for group in self._neuron.ratios
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
        return self._layer.removed_blocks(ratio)

    def smallest(self) -> PruningConfig:
        """The most pruned network that the space holds."""
        pruned: dict[str, Any] = {}
        for part in self.methods.values():
            pruned |= part.smallest()
        return PruningConfig(**pruned)

    def first_guess(self, dimension: Dimension) -> Scalar:
        """The value that a person would try first, without layer and weight pruning.

        The middle of a range and the first of several choices, but of learning-rate schedules the one that lets a short
        training settle, and as much distillation as there may be.
        """
        name, domain = dimension.name, dimension.domain
        part = self._method_of(name)
        if part is not None:
            return part.first_guess(dimension)
        if name == "gradual_pruning":
            return dimension.nearest(0.0)
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
            if dimension.name.startswith(RATIO)
            else self.first_guess(dimension)
            for dimension in self.dimensions()
        }

    def _method_of(self, name: str) -> MethodSpace | None:
        """The part of the pruning method that a dimension belongs to; ``None`` if it belongs to none."""
        return self.methods.get(name.partition(".")[0])
