"""What every pruning method keeps to, on a real network: its dimensions, its smallest network, its part of a trial."""

import copy
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pruning_networks import ConvShortcutResNet
from torch import nn

from autoprune.config import COSTS
from autoprune.config.dimension import Dimension, Pick
from autoprune.config.pruning import METHODS, SETTINGS
from autoprune.config.task import CallableRef
from autoprune.cost import measure_cost
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.saved_model import save_model
from autoprune.pruning.apply import Pruned, prune
from autoprune.pruning.methods import PRUNING_METHODS, MethodInTrial, MethodSpace, PruningMethod
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.planner import make_plan
from autoprune.training.checkpoint import load_checkpoint, save_checkpoint
from autoprune.trial import PruningConfig, Scalar, TrialResult

pytestmark = pytest.mark.xdist_group("methods_contract")  # its fixtures take long: one process makes them

IMAGES = torch.linspace(-1, 1, 2 * 64).view(2, 1, 8, 8)
MEASURED = [name for name in COSTS if name != "latency_ms"]
N_DRAWN = 12

every_method = pytest.mark.parametrize("method", PRUNING_METHODS.values(), ids=PRUNING_METHODS)


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(0)
    return ConvShortcutResNet().eval()


@pytest.fixture(scope="module")
def plan(dense: nn.Module) -> PruningPlan:
    return make_plan(dense, IMAGES)


Make = Callable[..., MethodSpace]
Apply = Callable[[PruningMethod, PruningConfig], tuple[nn.Module, MethodInTrial]]


@pytest.fixture
def space_of(plan: PruningPlan) -> Make:
    """Makes a method's space from its section of a space file; what the section leaves out has its default."""

    def make(method: PruningMethod, **section: Any) -> MethodSpace:
        problems: list[str] = []
        settings = SETTINGS[METHODS.index(method.name)].model_validate({"method": method.name, **section})
        space = method.space(settings, plan, problems)
        assert problems == []
        return space

    return make


@pytest.fixture
def applied(dense: nn.Module, plan: PruningPlan) -> Apply:
    """Prunes the dense network as a trial does, by one method."""

    def apply(method: PruningMethod, pruning: PruningConfig) -> tuple[nn.Module, MethodInTrial]:
        pruned: Pruned = prune(dense, plan, pruning, example_inputs=IMAGES)
        part = method.in_trial(pruning, plan.group_widths)
        part.apply(pruned, pruning)
        return pruned.model, part

    return apply


def drawing(seed: int, asked: dict[str, Scalar]) -> Pick:
    """Gives dimensions random values, and notes them."""
    rng = np.random.default_rng(seed)

    def pick(value: Scalar | Dimension) -> Scalar:
        if not isinstance(value, Dimension):
            return value
        assert value.name not in asked
        asked[value.name] = value.at(float(rng.random()))
        return asked[value.name]

    return pick


def without_data(found: dict[str, Any]) -> PruningConfig:
    """A configuration whose pruning looks at no data."""
    return PruningConfig(**found | ({"criterion": "l1", "reconstruct": False} if "widths" in found else {}))


def costs(dense: nn.Module, model: nn.Module, folder: Path) -> dict[str, float]:
    size_bytes = save_model(folder, model, architecture_diff(dense, model, CallableRef(callable="networks:net")))
    cost = measure_cost(model, IMAGES, size_bytes, "cpu", latency=False)
    return {name: getattr(cost, name) for name in MEASURED}


def test_the_registry_knows_the_methods_that_a_space_file_may_name() -> None:
    assert tuple(PRUNING_METHODS) == METHODS
    for section, name in zip(SETTINGS, METHODS, strict=True):
        assert get_args(section.model_fields["method"].annotation) == (name,)


def test_no_two_methods_share_a_field_or_a_key(space_of: Make, applied: Apply) -> None:
    suggested: list[str] = []
    kept: list[str] = []
    reported: list[str] = []
    for method in PRUNING_METHODS.values():
        found = space_of(method).suggest(drawing(0, {}))
        part = applied(method, without_data(found))[1]
        suggested += found
        kept += part.state_dict()
        reported += part.outcome()
    for names in (suggested, kept, reported):
        assert len(names) == len(set(names))
    known = {field.name for field in fields(PruningConfig)}
    assert set(suggested) == known - {"gradual_share"}
    assert set(reported) <= {field.name for field in fields(TrialResult)}


@every_method
def test_it_is_known_what_can_be_pruned(method: PruningMethod, plan: PruningPlan) -> None:
    assert method.prunable(plan)
    assert not method.prunable(PruningPlan(groups=(), blocks=(), weight_layers={}, left_out=(), graph={}))


@every_method
def test_a_method_that_is_not_used_asks_for_nothing(method: PruningMethod, plan: PruningPlan) -> None:
    problems: list[str] = []
    space = method.space(None, plan, problems)
    assert space.dimensions() == problems == []
    asked: dict[str, Scalar] = {}
    assert PruningConfig(**space.suggest(drawing(0, asked))) == PruningConfig(**space.smallest()) == PruningConfig()
    assert asked == {}


@every_method
def test_a_pattern_that_matches_nothing_is_a_mistake(method: PruningMethod, plan: PruningPlan) -> None:
    problems: list[str] = []
    section = {"method": method.name, "layers": {"no_such_layer": "skip"}}
    method.space(SETTINGS[METHODS.index(method.name)].model_validate(section), plan, problems)
    (problem,) = problems
    assert problem.startswith(f"pruning ({method.name}).layers: 'no_such_layer' matches none")


@every_method
def test_dimensions_have_the_methods_name_and_are_asked_for_where_they_apply(
    method: PruningMethod, space_of: Make
) -> None:
    space = space_of(method)
    dimensions = {dimension.name: dimension for dimension in space.dimensions()}
    assert dimensions
    assert len(dimensions) == len(space.dimensions())
    for dimension in dimensions.values():
        assert dimension.name.startswith(f"{method.name}.")
        assert dimension.holds(space.first_guess(dimension))
    for seed in range(N_DRAWN):
        asked: dict[str, Scalar] = {}
        space.suggest(drawing(seed, asked))
        assert all(dimensions[name].holds(value) for name, value in asked.items())
        assert set(asked) == {name for name in dimensions if space.applies(name, asked)}


@every_method
def test_a_configuration_is_found_again_in_its_space(method: PruningMethod, space_of: Make) -> None:
    space = space_of(method)
    for seed in range(N_DRAWN):
        asked: dict[str, Scalar] = {}
        pruning = PruningConfig(**space.suggest(drawing(seed, asked)))
        for known in (asked, {}):
            values = dict(space.values_of(pruning, known))
            assert all(dimension.holds(values[dimension.name]) for dimension in space.dimensions())

            def pick(value: Scalar | Dimension, values: dict[str, Scalar] = values) -> Scalar:
                return values[value.name] if isinstance(value, Dimension) else value

            assert space.structure(PruningConfig(**space.suggest(pick))) == space.structure(pruning)


@every_method
def test_only_the_costs_that_it_lowers_fall_and_none_is_below_the_smallest(
    method: PruningMethod, space_of: Make, applied: Apply, dense: nn.Module, tmp_path: Path
) -> None:
    space = space_of(method)
    whole = costs(dense, dense, tmp_path)
    smallest = costs(dense, applied(method, without_data(space.smallest()))[0], tmp_path)
    assert {name for name in MEASURED if smallest[name] < whole[name]} == method.lowers & set(MEASURED)
    for seed in range(N_DRAWN):
        found = costs(dense, applied(method, without_data(space.suggest(drawing(seed, {}))))[0], tmp_path)
        for name in MEASURED:
            assert smallest[name] <= found[name] <= whole[name]
            assert name in method.lowers or found[name] == whole[name]
    assert ("latency_ms" in method.lowers) == ("macs" in method.lowers)  # latency itself is too noisy to compare


SMALLEST_WEIGHTS = [
    ({"pattern": "2:4"}, {0.5}, "layer"),
    ({"pattern": ["2:4", "none"], "ratio": {"low": 0.0, "high": 0.4}}, {0.5}, "layer"),
    ({"pattern": ["2:4", "none"], "ratio": {"low": 0.0, "high": 0.6}}, {0.6}, "layer"),
    ({"scope": ["global", "layer"], "ratio": 0.7, "layers": {"fc": "skip"}}, {0.7}, "global"),
    ({"scope": ["global", "layer"], "ratio": 0.7, "layers": {"*": 0.8}}, {0.8}, "layer"),
]


@pytest.mark.parametrize(("section", "ratios", "scope"), SMALLEST_WEIGHTS)
def test_the_smallest_of_several_patterns_and_scopes(
    section: dict[str, Any], ratios: set[float], scope: str, space_of: Make
) -> None:
    smallest = PruningConfig(**space_of(PRUNING_METHODS["weight"], **section).smallest())
    assert (set(smallest.weight_ratios.values()), smallest.weight_scope) == (ratios, scope)


@every_method
def test_gradual_pruning_ends_in_what_was_asked(
    method: PruningMethod, space_of: Make, dense: nn.Module, plan: PruningPlan
) -> None:
    for seed in range(N_DRAWN):
        pruning = PruningConfig(**space_of(method).suggest(drawing(seed, {})))
        part = method.in_trial(pruning, plan.group_widths)
        part.begin_gradually(dense)
        for share in (0.1, 0.5, 1.0):
            due = part.at(share)
            assert set(due) <= set(asdict(pruning))
            assert PruningConfig(**due).removed_blocks == pruning.removed_blocks
        assert PruningConfig(**due) == pruning


@every_method
def test_the_state_of_a_trial_goes_through_a_checkpoint(
    method: PruningMethod, space_of: Make, applied: Apply, plan: PruningPlan, tmp_path: Path
) -> None:
    pruning = without_data(space_of(method).smallest())
    model, part = applied(method, pruning)
    save_checkpoint(tmp_path / "state", part.state_dict())
    state = load_checkpoint(tmp_path / "state")
    assert state is not None

    copied = copy.deepcopy(model)
    restored = method.in_trial(pruning, plan.group_widths)
    restored.load_state_dict(copied, state)
    assert restored.outcome() == part.outcome()
    assert restored.left_dense(copied) == part.left_dense(model)
    assert restored.state_dict().keys() == part.state_dict().keys()
    for network, owner in ((model, part), (copied, restored)):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1.0)  # an optimizer step moves zeros too
        owner.after_step()
    torch.testing.assert_close(dict(copied.named_parameters()), dict(model.named_parameters()), rtol=0, atol=0)


@every_method
def test_the_dense_network_has_all_that_the_smallest_keeps_and_not_the_other_way_round(
    method: PruningMethod, space_of: Make, applied: Apply, plan: PruningPlan
) -> None:
    smallest = without_data(space_of(method).smallest())
    outcome = {"kept": plan.group_widths, **applied(method, smallest)[1].outcome()}
    whole, small = TrialResult(0, "finished", kept=plan.group_widths), TrialResult(1, "finished", **outcome)
    assert method.can_follow(whole, PruningConfig(), smallest, plan)
    assert method.can_follow(small, smallest, smallest, plan)
    assert not method.can_follow(small, smallest, PruningConfig(), plan)


@every_method
def test_gradual_pruning_goes_on_after_a_checkpoint_from_where_the_parent_was(
    method: PruningMethod, space_of: Make, applied: Apply, plan: PruningPlan
) -> None:
    space = space_of(method)
    parent, _ = applied(method, without_data(space.suggest(drawing(0, {}))))
    part, restored = (method.in_trial(PruningConfig(**space.smallest()), plan.group_widths) for _ in range(2))
    part.begin_gradually(parent)
    restored.load_state_dict(parent, part.state_dict())
    assert restored.at(0.5) == part.at(0.5)
    assert PruningConfig(**part.at(1.0)) == PruningConfig(**space.smallest())
