"""What ``benchmarks.suggest_time`` runs on: a space of any size, a formula for training, studies quickly filled."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import sqlalchemy
import torch
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FixedTrial, TrialState
from torch import nn

from autoprune.config import SearchConfig
from autoprune.cost import CostTable, build_table
from autoprune.pruning.channels.ranking import kept_scores
from autoprune.pruning.planner import make_plan
from autoprune.search.samplers.cost_aware.initial_design import lr_origin, step_origin, train_on_origin
from autoprune.search.samplers.cost_aware.settings import InitialDesignSettings
from autoprune.search.space import SearchSpace
from autoprune.search.space.dimension import distribution
from autoprune.study.dense_reference import DenseReference
from autoprune.study.folder import StudyFolder
from autoprune.study.optuna_storage import open_study
from autoprune.study.records import CONFIG, CURVE, ORIGIN, PARENT, RESULT
from autoprune.trial import Cost, Latency, Scalar, TrialConfig, TrialResult, to_dict

TRAINING: dict[str, Any] = {
    "epochs": {"low": 1, "high": 8},
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": {"low": 1e-5, "high": 1e-3, "log": True}},
    "lr_schedule": [
        {"kind": "cosine", "lr": {"low": 0.003, "high": 0.2, "log": True}},
        {"kind": "one_cycle", "lr": {"low": 0.003, "high": 0.2, "log": True}},
    ],
    "batch_size_schedule": {"kind": "constant", "size": [32, 64, 128]},
}
N_TRAINING = 6
"""Searched dimensions of ``TRAINING``; the others of a problem are widths."""

DENSE_ACCURACY = 0.9


@dataclass(frozen=True)
class Problem:
    """A space of so many dimensions, with a formula for training."""

    n_dimensions: int
    study: str = "suggest_time"

    @cached_property
    def space(self) -> SearchSpace:
        return self.space_for("random", "dense")

    @cached_property
    def network(self) -> tuple[nn.Module, torch.Tensor]:
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        before = 3
        for index in range(self.n_dimensions - N_TRAINING):
            width = (16, 24, 32)[index % 3]
            layers += [nn.Conv2d(before, width, 1), nn.ReLU()]
            before = width
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * before, 10)).eval(), torch.randn(2, 3, 2, 2)

    @cached_property
    def _plan(self) -> Any:
        return make_plan(*self.network)

    @cached_property
    def table(self) -> CostTable:
        plan = self._plan
        return build_table(
            *self.network,
            widths=plan.group_widths,
            shrink=plan.shrink,
            products=plan.products,
            positions=plan.positions,
        )

    @cached_property
    def dense(self) -> DenseReference:
        return DenseReference(DENSE_ACCURACY, 1.0, self._cost({}), Latency(1.0, "none", 1, 1, 1))

    def space_for(self, sampler: str, start: str) -> SearchSpace:
        spec = SearchConfig.model_validate(
            {
                "study": self.study,
                "task": {"model": "none:none", "data": "none:none"},
                "objectives": ["accuracy", "flops"],
                "training": TRAINING,
                "pruning": [{"method": "neuron", "ratio": {"low": 0.0, "high": 0.9}}],
                "search": {"sampler": sampler, "start": start, "trials": 1_000_000, "ladder": 0},
            }
        )
        space = SearchSpace(spec, self._plan)
        assert len(space.dimensions()) == self.n_dimensions
        return space

    @cached_property
    def _scores(self) -> dict[str, list[float]]:
        return kept_scores(self.network[0], self._plan)

    def scores(self, kept: Mapping[str, int]) -> dict[str, list[float]]:
        """Scores of the channels of a network with these widths: the dense network's without its least important."""
        return {group: scores[len(scores) - kept.get(group, len(scores)) :] for group, scores in self._scores.items()}

    @cached_property
    def _weights(self) -> dict[str, float]:
        """How much each group matters, of 1 in all."""
        groups = self._plan.group_widths
        weights = np.random.default_rng(0).exponential(size=len(groups))
        return dict(zip(groups, (weights / weights.sum()).tolist(), strict=True))

    def drop(self, group: str, width: int) -> float:
        """What one group cut to a width costs of the accuracy."""
        return 0.5 * self._weights[group] * (1 - width / self._plan.group_widths[group]) ** 3

    def result(self, config: TrialConfig, lineage: int = 0) -> TrialResult:
        """What a trial comes out with: a smooth function of its widths, rate and epochs, and noise."""
        dense = self._plan.group_widths
        kept = dense | dict(config.pruning.widths)
        noise = np.random.default_rng([config.number % 2**32, config.seed]).normal(0.0, 0.003)
        rate = float(config.lr_schedule.params.get("lr", 0.02))
        lineage += config.epochs
        loss = sum(self.drop(group, kept[group]) for group in dense) + 0.01 * math.log10(rate / 0.03) ** 2
        accuracy = DENSE_ACCURACY - loss * (0.7 + 0.6 / (1 + lineage)) + noise
        return TrialResult(
            config.number, "finished", accuracy, 1.0, self._cost(config.pruning.widths), kept,
            epochs=config.epochs, epochs_lineage=lineage, seed=config.seed,
        )  # fmt: skip

    def _cost(self, widths: Any) -> Cost:
        cost = self.table.cost(widths)
        return Cost(cost.params, cost.params, cost.tensor_bytes, cost.macs)


class Filling:
    """A study that grows by trials cut at random from trials before them, as a tree of them would be.

    The rows are put into Optuna's tables all at once: through Optuna each value would be a transaction.
    """

    def __init__(self, problem: Problem, folder: StudyFolder) -> None:
        self._problem, self._folder = problem, folder
        folder.create()
        spec = problem.space.spec
        open_study(folder, None, spec.study, spec.objectives, spec.directions)
        self._dimensions = {dimension.name: dimension for dimension in problem.space.dimensions()}
        self._distributions = {name: distribution(dimension) for name, dimension in self._dimensions.items()}
        self._rng = np.random.default_rng(0)
        self._results: list[TrialResult] = []
        self._ratios: list[dict[str, float]] = []

    def up_to(self, n_trials: int) -> None:
        engine = sqlalchemy.create_engine(f"sqlite:///{self._folder.database}")
        while len(self._results) < n_trials:
            rows: dict[type[models.BaseModel], list[dict[str, Any]]] = {}
            for number in range(len(self._results), min(n_trials, len(self._results) + 500)):
                self._add(number, rows)
            with engine.begin() as connection:
                for model, of_model in rows.items():
                    connection.execute(sqlalchemy.insert(model), of_model)
        engine.dispose()

    def _add(self, number: int, rows: dict[type[models.BaseModel], list[dict[str, Any]]]) -> None:
        config = self._config(number)
        lineage = 0 if config.parent is None else self._results[config.parent].epochs_lineage
        result = self._problem.result(config, lineage)
        self._results.append(result)
        assert result.cost is not None
        trial = {"trial_id": number + 1}
        now = datetime.now()
        rows.setdefault(models.TrialModel, []).append(
            trial
            | {"number": number, "study_id": 1, "state": TrialState.COMPLETE}
            | {"datetime_start": now, "datetime_complete": now}
        )
        rows.setdefault(models.TrialValueModel, []).extend(
            trial | {"objective": index, "value": value, "value_type": models.TrialValueModel.TrialValueType.FINITE}
            for index, value in enumerate((result.metric, result.cost.flops))
        )
        rows.setdefault(models.TrialUserAttributeModel, []).extend(
            trial | {"key": key, "value_json": json.dumps(value)}
            for key, value in {
                CONFIG: json.dumps(to_dict(config)),
                RESULT: json.dumps(to_dict(result)),
                PARENT: config.parent,
                ORIGIN: origin_of(number),
                CURVE: [result.metric] * config.epochs,
            }.items()
        )
        for name, value in config.params.items():
            distribution = self._distributions[name]
            inside = {"param_name": name, "param_value": distribution.to_internal_repr(value)}
            as_json = {"distribution_json": distribution_to_json(distribution)}
            rows.setdefault(models.TrialParamModel, []).append(trial | inside | as_json)

    def _config(self, number: int) -> TrialConfig:
        rng = self._rng
        parent = None if number < 5 or rng.random() < 0.3 else int(rng.integers(number))
        values: dict[str, Scalar] = {}
        for name, dimension in self._dimensions.items():
            if name.startswith("neuron.ratio."):
                before = 0.0 if parent is None else self._ratios[parent][name]
                values[name] = min(1 - (1 - before) * float(rng.uniform(0.7, 1.0)), 0.9)
            else:
                values[name] = dimension.at(float(rng.random()))
        self._ratios.append({name: float(value) for name, value in values.items() if name.startswith("neuron.ratio.")})
        return replace(self._problem.space.suggest(FixedTrial(values, number=number), number), parent=parent)


def origin_of(number: int) -> str:
    """Return what proposed a trial of a tree whose initial design is as long as any and is done."""
    settings = InitialDesignSettings()
    first = [lr_origin(position) for position in settings.lr_positions]
    first += [step_origin(step) for step in range(1, settings.max_steps)]
    first += [train_on_origin(step) for step in reversed(range(settings.max_steps))]
    return first[number] if number < len(first) else "mutate"
