"""A trial's configuration found again in its own space, and in another one over the same network."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from tiny import TINY_SPACE, merged

from autoprune.config import SearchConfig
from autoprune.pruning.plan import PruningPlan
from autoprune.search.space import SearchSpace, locate
from autoprune.study.folder import StudyFolder
from autoprune.trial import TrialConfig

WIDE: dict[str, Any] = {
    "training": {
        "epochs": [2, 4],
        "gradual_pruning": [0.0, 0.5],
        "distillation": {"weight": [0.0, 0.5], "temperature": [2.0, 4.0]},
        "optimizer": {"weight_decay": [0.0, 0.001]},
    },
    "pruning": [
        {"method": "neuron", "criterion": ["l1", "l2"], "ratio": {"low": 0.0, "high": 0.8, "step": 0.1}},
        {"method": "layer", "ratio": {"low": 0.0, "high": 0.9}},
        {"method": "weight", "pattern": ["none", "2:4"], "scope": ["layer", "global"]},
    ],
}


@pytest.fixture
def plan(trained_tiny: Path) -> PruningPlan:
    folder = StudyFolder(trained_tiny)
    return PruningPlan.from_dict(folder.read_json(folder.plan)["plan"])


def space_of(plan: PruningPlan, changes: dict[str, Any]) -> SearchSpace:
    return SearchSpace(SearchConfig.model_validate(merged(TINY_SPACE, changes)), plan)


def suggestions(space: SearchSpace, n: int) -> list[TrialConfig]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask(), seed=number) for number in range(n)]


@pytest.mark.parametrize("changes", [{}, WIDE], ids=["tiny", "wide"])
def test_a_space_finds_its_own_suggestions_again(plan: PruningPlan, changes: dict[str, Any]) -> None:
    space = space_of(plan, changes)
    for config in suggestions(space, 50):
        location = locate(space, config)
        assert location.whole
        assert location.params == config.params
        assert location.distributions.keys() == config.params.keys()


def test_values_that_one_space_fixes_are_found_where_another_searches_them(plan: PruningPlan) -> None:
    fixed = {
        "training": {"epochs": 2, "lr_schedule": {"kind": "cosine", "lr": 0.05}},
        "pruning": [{"method": "neuron", "criterion": "l2"}],
    }
    searched = {
        "training": {"epochs": [1, 2]},
        "pruning": [{"method": "neuron", "criterion": ["l1", "l2"]}, {"method": "layer"}],
    }
    for config in suggestions(space_of(plan, fixed), 10):
        location = locate(space_of(plan, searched), config)
        assert location.whole
        found = {"epochs": 2, "lr_schedule": "cosine", "lr_schedule.cosine.lr": 0.05, "neuron.criterion": "l2"}
        assert location.params.items() >= (config.params | found).items()
        assert locate(space_of(plan, fixed), config).params == config.params


@pytest.mark.parametrize(
    ("changes", "missing", "cut", "depth"),
    [
        ({"training": {"lr_schedule": {"kind": "cosine", "lr": {"low": 0.06, "high": 0.1}}}}, "lr", True, True),
        ({"training": {"epochs": 3}}, None, True, True),
        ({"training": {"epochs": [3, 4]}}, "epochs", True, True),
        ({"training": {"distillation": {"weight": 0.5}}}, None, True, True),
        ({"training": {"distillation": {"weight": {"low": 0.1, "high": 0.9}}}}, "distillation.weight", True, True),
        ({"pruning": [{"method": "neuron", "ratio": {"low": 0.0, "high": 0.4}}]}, "neuron.ratio.stem", False, True),
        ({"pruning": [{"method": "neuron", "layers": {"stem": "skip"}}]}, None, False, True),
        ({"pruning": [{"method": "layer"}]}, None, False, True),
        ({"pruning": [{"method": "neuron"}, {"method": "layer", "ratio": 0.5}]}, None, False, False),
        (
            {"pruning": [{"method": "neuron"}, {"method": "weight", "ratio": {"low": 0.5, "high": 0.8}}]},
            "weight.ratio.head",
            False,
            False,
        ),
    ],
)
def test_what_lies_outside_of_a_space(
    plan: PruningPlan, changes: dict[str, Any], missing: str | None, cut: bool, depth: bool
) -> None:
    there = space_of(
        plan, {"training": {"lr_schedule": {"kind": "cosine", "lr": 0.05}}, "pruning": [{"method": "neuron"}]}
    )
    ratios = {f"neuron.ratio.{group}": 0.75 for group in plan.group_widths}
    config = there.suggest(optuna.trial.FixedTrial(ratios | {"batch_size_schedule.constant.size": 32}), seed=0)
    space = space_of(
        plan, {"training": {"lr_schedule": {"kind": "cosine", "lr": 0.05}}, "pruning": [{"method": "neuron"}]} | changes
    )
    location = locate(space, config)
    assert (location.whole, location.cut, location.depth) == (False, cut, depth)
    if missing is not None:
        names = {dimension.name for dimension in space.dimensions()}
        assert any(name.endswith(missing) for name in names - location.params.keys())
