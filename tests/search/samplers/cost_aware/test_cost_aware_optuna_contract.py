"""Optuna's own contract tests for samplers, applied to ``cost_aware``.

The sampler suggests the dimensions of one search space. Where an objective asks for a parameter of another name, Optuna
asks it to sample that parameter independently. So what the contract says of independent sampling, of several objectives
and of the calls between a study and its sampler holds as it stands.

Two parts of the contract can't hold. Relative sampling of any search space: a candidate is made of the space's own
groups and training, so parameters of other names have no meaning to it; the same demands are made of its own space
here. ``SingleOnlySamplerTestCase``: it is for samplers that refuse several objectives, and this one is for several.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from tiny import copy_study, prepare_tiny, tiny_folder

from autoprune.search.samplers.cost_aware import CostAwareSampler, CostAwareSettings, SearchKnowledge
from autoprune.search.samplers.cost_aware.settings import InitialDesignSettings
from autoprune.study.records import CONFIG, RESULT
from autoprune.trial import Cost, TrialResult, to_dict


@pytest.fixture(scope="module")
def knowledge(trained_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchKnowledge:
    root = tmp_path_factory.mktemp("contract") / "a"
    copy_study(trained_tiny, root, {"pruning": [{"method": "neuron", "criterion": ["l1", "l2"]}]})
    study = prepare_tiny(root / "space.yaml", tiny_folder(root))
    return SearchKnowledge(
        space=study.space,
        table=study.table,
        dense=study.dense,
        start="tree",
        has_model=lambda number: True,
        budget_epochs=20.0,
        allowed=lambda widths: np.ones(len(widths), dtype=bool),
    )


@pytest.fixture
def sampler(knowledge: SearchKnowledge) -> Callable[[], BaseSampler]:
    """Makes samplers, each with a history of its own, as each of a contract's studies is a new one."""
    return lambda: CostAwareSampler(replace(knowledge), seed=0)


class TestBasic(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self, sampler: Callable[[], BaseSampler]) -> Callable[[], BaseSampler]:
        return sampler


class TestMultiObjective(MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self, sampler: Callable[[], BaseSampler]) -> Callable[[], BaseSampler]:
        return sampler


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_trial_s_relative_parameters_come_with_its_first_suggestion(
    sampler: Callable[[], BaseSampler], n_jobs: int
) -> None:
    RelativeSamplerTestCase().test_trial_relative_params(n_jobs, sampler)


def tell_a_result(study: optuna.Study, knowledge: SearchKnowledge) -> None:
    """Run a trial of the sampler's own space, whose accuracy is a formula."""
    trial = study.ask()
    config = knowledge.space.suggest(trial, trial.number)
    macs = knowledge.table.cost(config.pruning.widths).macs
    cost = Cost(params=1, nonzero_params=1, size_bytes=1, macs=macs)
    accuracy = 0.5 + 0.3 * macs / knowledge.table.cost({}).macs
    result = TrialResult(trial.number, "finished", accuracy, 1.0, cost, config.pruning.widths, epochs=config.epochs)
    for key, record in ((CONFIG, config), (RESULT, result)):
        trial.set_user_attr(key, json.dumps(to_dict(record)))
    study.tell(trial, [accuracy, cost.flops])


@pytest.mark.parametrize(
    ("n_ended", "with_design"),
    [
        pytest.param(0, True, id="initial design"),
        pytest.param(0, False, id="random candidates"),
        pytest.param(6, False, id="acquisition"),
    ],
)
def test_relative_samples_are_values_of_the_sampler_s_own_space(
    knowledge: SearchKnowledge, n_ended: int, with_design: bool
) -> None:
    settings = CostAwareSettings(initial_design=InitialDesignSettings(enabled=with_design))
    known = replace(knowledge, settings=settings)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=CostAwareSampler(known, seed=0))
    for _ in range(n_ended):
        tell_a_result(study, known)
    for _ in range(5):
        study.ask()
        trial = study.trials[-1]
        space = study.sampler.infer_relative_search_space(study, trial)
        sampled = study.sampler.sample_relative(study, trial, space)
        assert sampled.keys() == space.keys()
        for name, distribution in space.items():
            value = sampled[name]
            assert not isinstance(value, np.generic)
            if isinstance(distribution, CategoricalDistribution):
                assert value in distribution.choices
                continue
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            assert distribution.low <= value <= distribution.high
            assert isinstance(value, int if isinstance(distribution, IntDistribution) else float)
