"""Pruning a network: it computes what the masked one does, keeps what was asked, and can be pruned again."""

import copy
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from masking import masked
from pruning_networks import (
    Concat,
    ConvShortcutResNet,
    Depthwise,
    OptionAResNet,
    TiedMLP,
    conv_flatten,
    mlp,
    settled,
)
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from autoprune.errors import PruningError
from autoprune.pruning.apply import prune
from autoprune.pruning.blocks.removed import RemovedBlock
from autoprune.pruning.channels.criteria import CRITERIA
from autoprune.pruning.channels.widths import current_widths
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.planner import make_plan
from autoprune.trial import PruningConfig
from autoprune.zoo import resnet20

NETWORKS = (mlp, conv_flatten, Depthwise, Concat, TiedMLP, ConvShortcutResNet)


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    return torch.tensor(data.images[:96] / 16, dtype=torch.float32).unsqueeze(1), torch.tensor(data.target[:96])


def calibration() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    images, targets = digits()
    yield from zip(images.split(32), targets.split(32), strict=True)


@cache
def dense(build: Callable[[], nn.Module]) -> tuple[nn.Module, PruningPlan]:
    torch.manual_seed(0)
    model = settled(build())
    return model, make_plan(model, digits()[0][:1])


def pruned_to(model: nn.Module, plan: PruningPlan, config: PruningConfig, seed: int = 0):  # type: ignore[no-untyped-def]
    return prune(
        model, plan, config, example_inputs=digits()[0][:2], calibration=calibration, loss=F.cross_entropy, seed=seed
    )


def shares(plan: PruningPlan, share: float) -> dict[str, int]:
    return {name: max(1, round(share * width)) for name, width in plan.group_widths.items()}


def assert_same_output(a: nn.Module, b: nn.Module) -> None:
    noise = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for inputs in (digits()[0][:16].double(), noise.double()):
        with torch.no_grad():
            left, right = (copy.deepcopy(network).double().eval()(inputs) for network in (a, b))
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("build", NETWORKS)
def test_output_is_that_of_the_masked_network(build: Callable[[], nn.Module], criterion: str) -> None:
    model, plan = dense(build)
    asked = shares(plan, 0.4)
    result = pruned_to(model, plan, PruningConfig(widths=asked, criterion=criterion))
    assert result.widths == asked == current_widths(result.model, plan)
    assert_same_output(masked(model, result.kept_indices), result.model)


@pytest.mark.parametrize("build", NETWORKS)
def test_shapes_are_those_that_shrink_predicts(build: Callable[[], nn.Module]) -> None:
    model, plan = dense(build)
    result = pruned_to(model, plan, PruningConfig(widths=shares(plan, 0.3)))
    lost = {name: width - result.widths[name] for name, width in plan.group_widths.items()}
    for name, tensor in result.model.state_dict().items():
        expected = [
            size - sum(n * lost[group] for group, n in plan.shrink.get(name, {}).get(dim, {}).items())
            for dim, size in enumerate(model.state_dict()[name].shape)
        ]
        assert list(tensor.shape) == expected, name


@pytest.mark.parametrize("build", NETWORKS)
def test_pruned_network_is_pruned_again(build: Callable[[], nn.Module]) -> None:
    model, plan = dense(build)
    parent = pruned_to(model, plan, PruningConfig(widths=shares(plan, 0.7), criterion="random"))
    asked = shares(plan, 0.35)
    child = pruned_to(parent.model, plan, PruningConfig(widths=asked, criterion="l1"))
    assert child.widths == asked
    assert_same_output(masked(parent.model, child.kept_indices), child.model)
    composed = {name: parent.kept_indices[name].flatten()[index] for name, index in child.kept_indices.items()}
    assert_same_output(masked(model, composed), child.model)


def test_hidden_layer_cut_by_hand() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 10))
    x = torch.randn(5, 10)
    plan = make_plan(model, x)
    result = prune(model, plan, PruningConfig(widths={"0": 7}, criterion="l1"), example_inputs=x)
    first, last = model[0], model[2]
    sums = (first.weight.abs().sum(1) + last.weight.abs().sum(0)).tolist()
    kept = sorted(sorted(range(20), key=lambda i: -sums[i])[:7])
    by_hand = torch.relu(x @ first.weight[kept].T + first.bias[kept]) @ last.weight[:, kept].T + last.bias
    torch.testing.assert_close(result.model(x), by_hand)
    assert result.kept_indices["0.bias"].tolist() == kept
    assert result.model[0].out_features == result.model[2].in_features == 7


def test_resnet20_keeps_shortcuts_whole() -> None:
    torch.manual_seed(0)
    model = settled(OptionAResNet())
    x = torch.randn(2, 3, 32, 32)
    plan = make_plan(model, x)
    config = PruningConfig(widths=shares(plan, 0.5), removed_blocks=("layer1.1", "layer3.2"))
    result = prune(model, plan, config, example_inputs=x)
    inside = {"layer1.1.conv1", "layer3.2.conv1"}
    assert result.widths == {name: 0 if name in inside else width // 2 for name, width in plan.group_widths.items()}
    assert set(result.removed_blocks) == {"layer1.1", "layer3.2"}
    with torch.no_grad():
        expected = masked(model, result.kept_indices).eval()(x)
    torch.testing.assert_close(result.model.eval()(x), expected, rtol=1e-4, atol=1e-4)


def test_attribute_that_equals_a_width_by_chance_stays() -> None:
    torch.manual_seed(0)
    model = settled(resnet20())
    images = torch.randn(1, 3, 32, 32)
    plan = make_plan(model, images)
    sixteen = prune(model, plan, PruningConfig(widths={"layer2.0.conv1": 16}), example_inputs=images).model
    assert sixteen.get_submodule("layer2.0").new_channels == 16  # of the shortcut, as in the dense network
    fifteen = prune(sixteen, plan, PruningConfig(widths={"layer2.0.conv1": 15}), example_inputs=images).model
    assert fifteen.get_submodule("layer2.0").new_channels == 16


def test_blocks_go_before_channels_and_stay_gone() -> None:
    model, plan = dense(ConvShortcutResNet)
    first = pruned_to(
        model, plan, PruningConfig(removed_blocks=("layer1.0",), widths={"layer1.0.conv1": 3, "conv1": 5})
    )
    assert isinstance(first.model.get_submodule("layer1.0"), RemovedBlock)
    assert first.widths["layer1.0.conv1"] == 0
    assert first.widths["conv1"] == 5
    assert not any(name.startswith("layer1.0.") for name in first.kept_indices)
    second = pruned_to(first.model, plan, PruningConfig(removed_blocks=("layer2.1", "layer1.0"), widths={"conv1": 2}))
    assert set(second.removed_blocks) == {"layer1.0", "layer2.1"}
    assert_same_output(masked(first.model, second.kept_indices), second.model)
    kept = pruned_to(first.model, plan, PruningConfig())
    assert kept.removed_blocks == ("layer1.0",)


def test_all_widths_at_one_and_all_blocks_gone() -> None:
    model, plan = dense(ConvShortcutResNet)
    ones = dict.fromkeys(plan.group_widths, 1)
    result = pruned_to(model, plan, PruningConfig(widths=ones, removed_blocks=plan.block_names))
    assert set(result.widths.values()) == {0, 1}
    result.model.train()(digits()[0]).sum().backward()


def test_state_around_the_weights_is_kept() -> None:
    _, plan = dense(ConvShortcutResNet)
    model = settled(ConvShortcutResNet()).to(torch.bfloat16)
    model.layer1.eval()
    model.fc.bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = prune(
        model, plan, PruningConfig(widths=shares(plan, 0.5)), example_inputs=digits()[0][:2].to(torch.bfloat16)
    )
    assert {tensor.dtype for tensor in result.model.parameters()} == {torch.bfloat16}
    assert {n: p.requires_grad for n, p in result.model.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    assert {n: m.training for n, m in result.model.named_modules()} == {n: m.training for n, m in model.named_modules()}
    assert result.model.bn1.num_batches_tracked.item() == 7
    assert list(result.model.state_dict()) == list(model.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in (*model.parameters(), *result.model.parameters()))
    for name, tensor in result.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].flatten()[result.kept_indices[name]])


def test_tied_weights_stay_tied() -> None:
    model, plan = dense(TiedMLP)
    result = pruned_to(model, plan, PruningConfig(widths={"first": 5}))
    assert result.model.first.weight is result.model.second.weight
    assert result.model.first.weight.shape == (5, 64)


def test_same_seed_same_channels() -> None:
    model, plan = dense(mlp)
    config = PruningConfig(widths=shares(plan, 0.5), criterion="random")
    chosen = [pruned_to(model, plan, config, seed).kept_indices["1.bias"].tolist() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_nothing_asked_gives_the_same_network() -> None:
    model, plan = dense(mlp)
    result = pruned_to(model, plan, PruningConfig(widths=plan.group_widths))
    assert result.widths == plan.group_widths
    assert_same_output(model, result.model)
    assert all(index.flatten().equal(torch.arange(index.numel())) for index in result.kept_indices.values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PruningConfig(widths={"1": 21}), r"widths\['1'\].*<= 20.*got 21"),
        (PruningConfig(widths={"1": 0}), r"widths\['1'\]: 1 <=.*got 0"),
        (PruningConfig(widths={"11": 3}), r"unknown group '11' \(did you mean '1'\?\)"),
        (PruningConfig(removed_blocks=("1",)), "unknown block '1'"),
        (PruningConfig(criterion="tailor"), r"unknown criterion 'tailor' \(did you mean 'taylor'\?\)"),
    ],
)
def test_what_cannot_be_done_is_said(config: PruningConfig, message: str) -> None:
    model, plan = dense(mlp)
    with pytest.raises(PruningError, match=message):
        pruned_to(model, plan, config)


def test_width_above_a_parents_is_refused() -> None:
    model, plan = dense(mlp)
    parent = pruned_to(model, plan, PruningConfig(widths={"1": 6}))
    with pytest.raises(PruningError, match=r"<= 6 .*got 9"):
        pruned_to(parent.model, plan, PruningConfig(widths={"1": 9}))


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "activation", "apoz", "obs"])
def test_criteria_that_need_data_say_so(criterion: str) -> None:
    model, plan = dense(mlp)
    config = PruningConfig(widths={"1": 3}, criterion=criterion)
    with pytest.raises(PruningError, match=f"'{criterion}' needs calibration"):
        prune(model, plan, config, example_inputs=digits()[0][:1])
    with pytest.raises(PruningError, match="at least one calibration batch"):
        prune(model, plan, config, example_inputs=digits()[0][:1], calibration=list, loss=F.cross_entropy)


def test_diverged_network_is_refused() -> None:
    _, plan = dense(mlp)
    broken = mlp()
    with torch.no_grad():
        broken[1].weight[0, 0] = torch.nan
    with pytest.raises(PruningError, match="not finite"):
        pruned_to(broken, plan, PruningConfig(widths={"1": 3}))
