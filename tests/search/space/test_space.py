"""A space file and a plan together: what a trial may be asked, and the trial that comes of it."""

import warnings
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from autoprune.config import Range, SearchConfig
from autoprune.config.dimension import Dimension
from autoprune.errors import ConfigError
from autoprune.pruning.plan import Block, Group, PruningPlan, Unprunable
from autoprune.search.space import SearchSpace
from autoprune.search.space.dimension import suggest
from autoprune.trial import DistillationConfig, PruningConfig, TrialConfig

PLAN = PruningPlan(
    groups=(
        Group("stem", 16, ("stem", "stage1.conv1")),
        Group("stage1.conv1", 16, ("stage1.conv1", "stage1.conv2")),
        Group("stage2.conv1", 30, ("stage2.conv1", "stage2.conv2")),
    ),
    blocks=(Block("stage2", 0.1), Block("stage1", 0.2), Block("stage3", 0.3), Block("stage0", 0.4)),
    weight_layers={"stem.weight": 144, "stage1.conv1.weight": 2304, "head.weight": 300},
    left_out=(Unprunable("head", "its width is the network's output"), Unprunable("", "the network as a whole")),
    graph={},
)
NEURON = {"method": "neuron", "ratio": {"low": 0.0, "high": 0.9}}
FIXED_TRAINING = {
    "optimizer": {"name": "sgd"},
    "lr_schedule": {"kind": "constant", "lr": 0.1},
    "batch_size_schedule": {"kind": "constant", "size": 32},
}


def space(*pruning: dict[str, Any], plan: PruningPlan = PLAN, **training: Any) -> SearchSpace:
    """A space of fixed training but for what ``training`` gives."""
    spec = SearchConfig.model_validate(
        {
            "study": "s",
            "task": {"model": "a:b", "data": "a:c"},
            "training": FIXED_TRAINING | training,
            "pruning": list(pruning) or [NEURON],
        }
    )
    return SearchSpace(spec, plan)


def run(found: SearchSpace, params: dict[str, Any]) -> TrialConfig:
    """The trial that comes of given values, each of which must lie inside its domain and be asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna warns of a value outside the domain, and goes on
        config = found.suggest(FixedTrial(params), seed=0)
    assert config.params == params
    return config


def studied(found: SearchSpace, n_trials: int = 40) -> list[TrialConfig]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [found.suggest(study.ask(), seed=number) for number in range(n_trials)]


def names(found: SearchSpace) -> list[str]:
    return [dimension.name for dimension in found.dimensions()]


JOINT = {
    "epochs": {"low": 2, "high": 9, "step": 3},
    "gradual_pruning": [0.0, 0.5],
    "distillation": {"weight": [0.0, 0.7], "temperature": {"low": 1.0, "high": 8.0}},
    "optimizer": [
        {"name": "sgd", "momentum": [0.0, 0.9], "nesterov": False},
        {"name": "adamw", "weight_decay": {"low": 1e-4, "high": 1e-1, "log": True}},
    ],
    "lr_schedule": [
        {"kind": "constant", "lr": {"low": 0.001, "high": 0.1, "log": True}},
        {"kind": "step", "lr": 0.1, "factor": [0.1, 0.3], "every": {"low": 1, "high": 4}},
        {"kind": "cosine", "lr": {"low": 0.2, "high": 0.2}, "warmup": [0.1]},
    ],
    "batch_size_schedule": [{"kind": "constant", "size": [32, 64]}, {"kind": "with_lr", "start": 16}],
}
ALL_METHODS = (
    {**NEURON, "criterion": ["l1", "taylor"]},
    {"method": "layer"},
    {"method": "weight", "scope": ["layer", "global"]},
)


def test_dimensions_of_the_joint_space() -> None:
    assert names(space(*ALL_METHODS, **JOINT)) == [
        "epochs",
        "gradual_pruning",
        "distillation.weight",
        "distillation.temperature",
        "optimizer",
        "optimizer.sgd.momentum",
        "optimizer.adamw.weight_decay",
        "lr_schedule",
        "lr_schedule.constant.lr",
        "lr_schedule.step.factor",
        "lr_schedule.step.every",
        "batch_size_schedule",
        "batch_size_schedule.constant.size",
        "neuron.criterion",
        "neuron.ratio.stem",
        "neuron.ratio.stage1.conv1",
        "neuron.ratio.stage2.conv1",
        "layer.ratio",
        "weight.scope",
        "weight.ratio.stem",
        "weight.ratio.stage1.conv1",
        "weight.ratio.head",
        "weight.ratio",
    ]


def test_a_study_asks_for_just_the_dimensions() -> None:
    found = space(*ALL_METHODS, **JOINT)
    trials = studied(found)
    assert {name for trial in trials for name in trial.params} == set(names(found))
    for trial in trials:
        chosen = {
            "optimizer": trial.optimizer.name,
            "lr_schedule": trial.lr_schedule.kind,
            "batch_size_schedule": trial.batch_size_schedule.kind,
        }
        for name in trial.params:
            family, _, parameter = name.partition(".")
            assert family not in chosen or parameter.partition(".")[0] in ("", chosen[family])
        assert ("weight.ratio" in trial.params) == (trial.pruning.weight_scope == "global")
        assert ("weight.ratio.stem" in trial.params) == (trial.pruning.weight_scope == "layer")
        assert trial.epochs in (2, 5, 8)
        assert ("distillation.temperature" in trial.params) == (trial.distillation.weight > 0)
        for name in names(found):
            assert found.applies(name, trial.params) == (name in trial.params)


def test_trial_of_given_values() -> None:
    params = {
        "epochs": 5,
        "gradual_pruning": 0.5,
        "optimizer": "adamw",
        "distillation.weight": 0.7,
        "distillation.temperature": 2.0,
        "optimizer.adamw.weight_decay": 0.01,
        "lr_schedule": "step",
        "lr_schedule.step.factor": 0.3,
        "lr_schedule.step.every": 2,
        "batch_size_schedule": "with_lr",
        "neuron.criterion": "taylor",
        "neuron.ratio.stem": 0.25,
        "neuron.ratio.stage1.conv1": 0.0,
        "neuron.ratio.stage2.conv1": 0.9,
        "layer.ratio": 0.5,
        "weight.scope": "layer",
        "weight.ratio.stem": 0.5,
        "weight.ratio.stage1.conv1": 0.0,
        "weight.ratio.head": 0.8,
    }
    config = run(space(*ALL_METHODS, **JOINT), params)
    assert (config.number, config.seed, config.epochs, config.parent) == (0, 0, 5, None)
    assert config.distillation == DistillationConfig(0.7, 2.0)
    assert config.optimizer.name == "adamw"
    assert config.optimizer.params == {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01}
    assert config.lr_schedule.kind == "step"
    assert config.lr_schedule.params == {"lr": 0.1, "warmup": 0.0, "factor": 0.3, "every": 2}
    assert config.batch_size_schedule.kind == "with_lr"
    assert config.batch_size_schedule.params == {"start": 16, "mode": "grow", "min_size": 1, "max_size": 4096}
    assert config.pruning == PruningConfig(
        widths={"stem": 12, "stage1.conv1": 16, "stage2.conv1": 3},
        criterion="taylor",
        reconstruct=True,
        removed_blocks=("stage1", "stage2"),
        weight_ratios={"stem.weight": 0.5, "head.weight": 0.8},
        weight_scope="layer",
        gradual_share=0.5,
    )


def test_global_weight_ratio_holds_for_every_layer_that_is_not_skipped() -> None:
    found = space({"method": "weight", "scope": "global", "layers": {"head": "skip"}})
    assert names(found) == ["weight.ratio"]
    pruning = run(found, {"weight.ratio": 0.5}).pruning
    assert pruning.weight_ratios == {"stem.weight": 0.5, "stage1.conv1.weight": 0.5}
    assert pruning.weight_scope == "global"


def test_lamp_takes_one_ratio_too() -> None:
    found = space({"method": "weight", "scope": ["global", "lamp"]})
    assert names(found) == ["weight.scope", "weight.ratio"]
    pruning = run(found, {"weight.scope": "lamp", "weight.ratio": 0.5}).pruning
    assert pruning.weight_ratios == dict.fromkeys(PLAN.weight_layers, 0.5)
    assert pruning.weight_scope == "lamp"


def test_a_pattern_gives_the_ratio() -> None:
    found = space({"method": "weight", "pattern": "2:4", "layers": {"head": "skip"}})
    assert found.dimensions() == []
    ratios = {"stem.weight": 0.5, "stage1.conv1.weight": 0.5}
    assert run(found, {}).pruning == PruningConfig(weight_ratios=ratios, weight_pattern="2:4")


def test_a_pattern_that_may_be_none_leaves_the_rest_to_the_other_trials() -> None:
    found = space({"method": "weight", "pattern": ["2:4", "none"], "scope": ["layer", "lamp"]})
    layers = [f"weight.ratio.{name.removesuffix('.weight')}" for name in PLAN.weight_layers]
    assert names(found) == ["weight.pattern", "weight.scope", *layers, "weight.ratio"]
    taken = {tuple(trial.params) for trial in studied(found)}
    assert taken == {
        ("weight.pattern",),
        ("weight.pattern", "weight.scope", "weight.ratio"),
        ("weight.pattern", "weight.scope", *layers),
    }
    for trial in studied(found):
        assert trial.params["weight.pattern"] == trial.pruning.weight_pattern
        assert trial.params.get("weight.scope", "layer") == trial.pruning.weight_scope
    ladder = space(NEURON, {"method": "weight", "pattern": ["2:4", "none"]}).ladder(2)
    assert all(params["weight.pattern"] == "none" for params in ladder.values())


def test_blocks_go_least_important_first() -> None:
    found = space({"method": "layer", "ratio": {"low": 0, "high": 0.75}, "layers": {"stage1": "skip"}})
    removed = [run(found, {"layer.ratio": ratio}).pruning.removed_blocks for ratio in (0.0, 0.34, 0.67)]
    assert removed == [(), ("stage2",), ("stage2", "stage3")]


def test_a_fixed_space_has_no_dimensions() -> None:
    found = space({"method": "neuron", "ratio": [0.5], "criterion": ["l1"]}, epochs={"low": 3, "high": 5, "step": 9})
    assert found.dimensions() == []
    config = run(found, {})
    assert (config.epochs, config.pruning.criterion, config.pruning.widths["stage2.conv1"]) == (3, "l1", 15)


def test_nothing_is_asked_about_a_method_with_nothing_to_prune() -> None:
    empty = PruningPlan(groups=(), blocks=(), weight_layers={}, left_out=(), graph={})
    found = space(*ALL_METHODS, plan=empty)
    assert found.dimensions() == []
    assert run(found, {}).pruning == PruningConfig()
    assert found.smallest() == PruningConfig()
    assert found.ladder(4) == {}


# Patterns in `layers`.


def ratios(found: SearchSpace) -> dict[str, Any]:
    return {dimension.name.removeprefix("neuron.ratio."): dimension.domain for dimension in found.dimensions()}


def test_layer_patterns() -> None:
    rules = {"*": {"high": 0.5}, "stage?.conv1": {"low": 0.1}, "stage2.*": [0.0, 0.25], "stem": "skip"}
    assert ratios(space({**NEURON, "layers": rules})) == {
        "stage1.conv1": Range(low=0.1, high=0.9),  # the last rule that matches counts, on top of the method's ratio
        "stage2.conv1": [0.0, 0.25],
    }
    widths = studied(space({**NEURON, "layers": rules}), 1)[0].pruning.widths
    assert "stem" not in widths


def test_layer_pattern_with_a_fixed_ratio() -> None:
    found = space({**NEURON, "layers": {"stage*": 0.5}})
    assert list(ratios(found)) == ["stem"]
    assert run(found, {"neuron.ratio.stem": 0.0}).pruning.widths == {"stem": 16, "stage1.conv1": 8, "stage2.conv1": 15}


def test_skipping_what_cannot_be_pruned_anyway_is_no_mistake() -> None:
    assert len(ratios(space({**NEURON, "layers": {"head": "skip"}}))) == 3


def test_patterns_that_match_nothing() -> None:
    with pytest.raises(ConfigError) as caught:
        space(
            {**NEURON, "layers": {"Stem": "skip", "head": {"high": 0.1}}},
            {"method": "layer", "layers": {"stage9": "skip"}},
            {"method": "weight", "layers": {"stem": "skip", "conv*": 0.5}},
        )
    groups = "stem, stage1.conv1, stage2.conv1"
    rule = "matches none of the layers that can be pruned"
    assert caught.value.problems == (
        f"pruning (neuron).layers: 'Stem' {rule}: {groups}.",
        f"pruning (neuron).layers: 'head' {rule}: {groups}.",
        f"pruning (layer).layers: 'stage9' {rule}: stage2, stage1, stage3, stage0.",
        f"pruning (weight).layers: 'conv*' {rule}: stem, stage1.conv1, head.",
    )


# Widths, the smallest network and the ladder.


@pytest.mark.parametrize(
    ("ratio", "round_to", "width"),
    [(0.0, 1, 30), (0.5, 1, 15), (0.9, 1, 3), (0.99, 1, 1), (0.0, 8, 30), (0.5, 8, 16), (0.7, 8, 8), (0.99, 8, 8)],
)
def test_width(ratio: float, round_to: int, width: int) -> None:
    assert space({**NEURON, "round_to": round_to}).width("stage2.conv1", ratio) == width


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 64))
def test_width_is_a_multiple_and_as_near_as_can_be(ratio: float, round_to: int) -> None:
    width = space({**NEURON, "round_to": round_to}).width("stage2.conv1", ratio)
    allowed = [*range(round_to, 30, round_to), 30]
    assert width in allowed
    nearest = min(abs(each - (1 - ratio) * 30) for each in range(round_to, 30 + round_to, round_to))
    assert width == 30 or abs(width - (1 - ratio) * 30) == pytest.approx(nearest, abs=1e-9)


def test_smallest_is_below_every_trial() -> None:
    found = space({**NEURON, "layers": {"stem": [0.1, 0.75, 0.5], "stage1.*": 0.5}}, {"method": "layer"})
    smallest = found.smallest()
    assert smallest == PruningConfig(
        widths={"stem": 4, "stage1.conv1": 8, "stage2.conv1": 3}, removed_blocks=("stage1", "stage2")
    )
    for trial in studied(found):
        assert all(trial.pruning.widths[group] >= width for group, width in smallest.widths.items())
        assert set(trial.pruning.removed_blocks) <= set(smallest.removed_blocks)


def test_smallest_keeps_to_the_steps() -> None:
    found = space({"method": "neuron", "ratio": {"low": 0.0, "high": 0.9, "step": 0.5}})
    assert found.smallest().widths == {"stem": 8, "stage1.conv1": 8, "stage2.conv1": 15}


def test_ladder() -> None:
    found = space(*ALL_METHODS, **JOINT)
    steps = found.ladder(3)
    assert list(steps) == [0.3, 0.6, 0.9]
    assert all(list(params) == names(found) for params in steps.values())
    params = steps[0.3]
    assert [value for name, value in params.items() if name.startswith("neuron.ratio.")] == pytest.approx([0.3] * 3)
    assert [params[name] for name in ("layer.ratio", "weight.ratio", "weight.ratio.stem", "gradual_pruning")] == [
        0.0
    ] * 4
    assert (params["epochs"], params["lr_schedule"], params["optimizer.sgd.momentum"]) == (5, "cosine", 0.0)
    assert params["distillation.weight"] == 0.7
    assert params["lr_schedule.constant.lr"] == pytest.approx(0.01)


def test_ladder_goes_through_a_study_unchanged() -> None:
    found = space(*ALL_METHODS, **JOINT)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for params in found.ladder(4).values():
        study.enqueue_trial(params)
    for params in found.ladder(4).values():
        config = found.suggest(study.ask(), seed=0)
        assert config.params.items() <= params.items()


def test_ladder_stays_in_each_layers_range_and_names_no_candidate_twice() -> None:
    found = space(
        {"method": "neuron", "ratio": [0.0, 0.5], "layers": {"stem": {"low": 0.4, "high": 0.6}, "stage1*": 0.1}}
    )
    taken = [(p["neuron.ratio.stem"], p["neuron.ratio.stage2.conv1"]) for p in found.ladder(6).values()]
    assert taken == [(0.4, 0.0), (0.4, 0.5), (pytest.approx(0.5), 0.5), (0.6, 0.5)]


def test_no_ladder() -> None:
    assert space().ladder(0) == {}
    assert space({"method": "neuron", "ratio": 0.5}).ladder(4) == {}
    assert space({"method": "layer"}).ladder(4) == {}


# One dimension.


decimals = st.integers(1, 100_000).map(lambda thousandths: thousandths / 1000)  # as people write them


@st.composite
def real_dimensions(draw: st.DrawFn) -> Dimension:
    low, high = sorted(draw(st.tuples(decimals, decimals).filter(lambda ends: ends[0] != ends[1])))
    extra = draw(st.sampled_from([{}, {"log": True}, {"step": draw(decimals)}]))
    return made({"low": low, "high": high, **extra}, integer=False)


@st.composite
def whole_dimensions(draw: st.DrawFn) -> Dimension:
    low, high = sorted(draw(st.tuples(*[st.integers(1, 5000)] * 2).filter(lambda ends: ends[0] != ends[1])))
    extra = draw(st.sampled_from([{}, {"log": True}, {"step": draw(st.integers(1, 100))}]))
    return made({"low": low, "high": high, **extra}, integer=True)


def made(domain: dict[str, Any], *, integer: bool) -> Dimension:
    """A dimension as a space makes it; one whose step leaves a single value gets the range without the step."""
    training = {"epochs": domain} if integer else {"lr_schedule": {"kind": "constant", "lr": domain}}
    dimensions = space({"method": "neuron", "ratio": 0.5}, **training).dimensions()
    return dimensions[0] if dimensions else made(domain | {"step": None}, integer=integer)


@given(real_dimensions() | whole_dimensions(), st.floats(-1e7, 1e7))
def test_nearest_and_middle_are_inside_the_domain(dimension: Dimension, value: float) -> None:
    for found in (dimension.nearest(value), dimension.middle()):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert suggest(dimension, FixedTrial({dimension.name: found})) == found
        assert isinstance(found, int if dimension.integer else float)


@given(whole_dimensions().filter(lambda dimension: not dimension.domain.log), st.floats(-1e4, 1e4))  # type: ignore[union-attr]
def test_nearest_is_the_nearest(dimension: Dimension, value: float) -> None:
    assert isinstance(dimension.domain, Range)
    every = range(int(dimension.domain.low), int(dimension.domain.high) + 1, int(dimension.domain.step or 1))
    assert abs(dimension.nearest(value) - value) == min(abs(each - value) for each in every)


@pytest.mark.parametrize(
    ("domain", "integer", "middle"),
    [
        (["b", "a"], False, "b"),
        (Range(low=0.0, high=0.5), False, 0.25),
        (Range(low=0.001, high=0.1, log=True), False, 0.01),
        (Range(low=0.0, high=1.0, step=0.25), False, 0.5),
        (Range(low=0, high=0.4, step=0.1), False, 0.2),
        (Range(low=1, high=16, log=True), True, 4),
        (Range(low=10, high=20, step=10), True, 10),
    ],
)
def test_middle(domain: Any, integer: bool, middle: Any) -> None:
    assert Dimension("x", domain, integer).middle() == pytest.approx(middle)


def test_nearest_choice() -> None:
    assert Dimension("x", [0.5, 0.1, 0.9]).nearest(0.2) == 0.1


def test_a_range_ends_on_its_last_step() -> None:
    (dimension,) = space(
        {"method": "neuron", "ratio": 0.5}, gradual_pruning={"low": 0.0, "high": 1.0, "step": 0.3}
    ).dimensions()
    assert dimension.domain == Range(low=0.0, high=0.9, step=0.3)
    assert dimension.nearest(1.0) == pytest.approx(0.9)
