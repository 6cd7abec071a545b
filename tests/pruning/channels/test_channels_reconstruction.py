"""Reconstruction: what a channel gave that others can give too is not lost with it."""

from collections.abc import Callable

import pytest
import torch
from pruning_networks import settled
from torch import nn

from autoprune.errors import PruningError
from autoprune.pruning.apply import prune
from autoprune.pruning.channels import layer_inputs
from autoprune.pruning.channels.importance import channel_scores, inputs_on, obs
from autoprune.pruning.graph import analyse
from autoprune.pruning.planner import make_plan
from autoprune.trial import PruningConfig

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def batches(*shape: int) -> Batches:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(64, *shape, generator=generator), torch.zeros(64, dtype=torch.long)) for _ in range(4)]


def doubled(maker: nn.Module, *norms: nn.Module) -> None:
    """Make the last channel three times the first one: the layer behind can do without it."""
    with torch.no_grad():
        for module in (maker, *norms):
            module.weight[-1] = 3 * module.weight[0] if module is (norms[-1] if norms else maker) else module.weight[0]
            if module.bias is not None:
                factor = 3 if module is (norms[-1] if norms else maker) else 1
                module.bias[-1] = factor * module.bias[0]
            for name, buffer in module.named_buffers():
                if name.startswith("running"):
                    buffer[-1] = buffer[0]


def linear() -> tuple[nn.Module, str, Batches]:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))
    doubled(model[0])
    return model, "0", batches(5)


def tokens() -> tuple[nn.Module, str, Batches]:
    return (*linear()[:2], batches(7, 5))


def conv1d() -> tuple[nn.Module, str, Batches]:
    model = nn.Sequential(nn.Conv1d(3, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 3, stride=2, padding="valid", dilation=2))
    doubled(model[0])
    return model, "0", batches(3, 20)


def conv2d() -> tuple[nn.Module, str, Batches]:
    maker, norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
    model = settled(nn.Sequential(maker, norm, nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1, stride=2, bias=False)))
    doubled(maker, norm)
    return model, "0", batches(3, 9, 8)


def circular() -> tuple[nn.Module, str, Batches]:
    second = nn.Conv2d(6, 4, (3, 1), padding="same", padding_mode="circular")
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), second)
    with torch.no_grad():
        model[0].weight[-1], model[0].bias[-1] = model[0].weight[0], model[0].bias[0]
    return model, "0", batches(3, 9, 8)


def conv3d() -> tuple[nn.Module, str, Batches]:
    model = nn.Sequential(nn.Conv3d(2, 6, 1), nn.ReLU(), nn.Conv3d(6, 4, 2, padding=1))
    doubled(model[0])
    return model, "0", batches(2, 4, 5, 4)


def flattened() -> tuple[nn.Module, str, Batches]:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4, 5))
    doubled(model[0])
    return model, "0", batches(3, 4, 4)


class Transposed(nn.Module):
    """A linear layer of its own kind, its weight the other way round, as GPT-2 has them."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(n_inputs, n_outputs)), nn.Parameter(torch.zeros(n_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


def transposed() -> tuple[nn.Module, str, Batches]:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), Transposed(6, 7), nn.ReLU(), nn.Linear(7, 4))
    doubled(model[0])
    return model, "0", batches(3, 5)


def changed(model: nn.Module, group: str, data: Batches, *, reconstruct: bool) -> float:
    """How far the outputs are from the uncut network's after a channel has left, relative to these."""
    inputs = data[0][0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan = make_plan(model, inputs[:2])
    width = next(each.width for each in plan.groups if each.name == group)
    config = PruningConfig(widths={group: width - 1}, criterion="obs", reconstruct=reconstruct)
    pruned = prune(model.eval(), plan, config, example_inputs=inputs[:2], calibration=lambda: data).model
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    with torch.no_grad():
        expected = model(inputs)
        return float((pruned.eval()(inputs) - expected).norm() / (expected - expected.mean()).norm())


NETWORKS = (linear, tokens, conv1d, conv2d, circular, conv3d, flattened, transposed)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_a_channel_that_others_stand_for_leaves_nothing_behind(
    network: Callable[[], tuple[nn.Module, str, Batches]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoprune.pruning.channels.reconstruction.RIDGE", 1e-8)
    monkeypatch.setattr("autoprune.pruning.channels.importance.obs.RIDGE", 1e-8)
    torch.manual_seed(0)
    model, group, data = network()
    assert changed(model, group, data, reconstruct=False) > 0.03
    assert changed(model, group, data, reconstruct=True) < 1e-3


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_what_no_other_can_stand_for_is_as_small_as_can_be(
    network: Callable[[], tuple[nn.Module, str, Batches]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, group, data = network()
    maker = model.get_submodule(group)
    nn.init.normal_(maker.weight[-1])
    plain, fitted = (changed(model, group, data, reconstruct=reconstruct) for reconstruct in (False, True))
    assert fitted < plain
    monkeypatch.setattr(layer_inputs, "MAX_INPUTS", 6 * 4)  # the positions of a kernel are no longer told apart
    assert changed(model, group, data, reconstruct=True) < plain


def test_the_fit_is_that_of_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.pruning.channels.reconstruction.RIDGE", 1e-8)
    torch.manual_seed(0)
    model, group, data = linear()
    nn.init.normal_(model[0].weight)
    inputs = torch.cat([batch for batch, _ in data])
    plan = make_plan(model, inputs[:2])
    config = PruningConfig(widths={group: 4}, reconstruct=True)
    pruned = prune(model, plan, config, example_inputs=inputs[:2], calibration=lambda: data).model
    with torch.no_grad():
        received = pruned[:2](inputs)
        ones = torch.ones(len(inputs), 1)
        best = torch.linalg.lstsq(torch.cat([received, ones], 1), model(inputs)).solution
        found = torch.cat([pruned[2].weight.T, pruned[2].bias[None]])
    torch.testing.assert_close(found, best, rtol=1e-3, atol=1e-4)


def test_a_constant_channel_goes_into_the_bias() -> None:
    torch.manual_seed(0)
    model, group, data = linear()
    with torch.no_grad():
        model[0].weight[-1], model[0].bias[-1] = 0, 2
    assert changed(model, group, data, reconstruct=False) > 0.03
    assert changed(model, group, data, reconstruct=True) < 1e-5


def test_shared_weights_stay_as_they_are() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(6, 4)
            self.right.weight = self.left.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.first(x).relu()
            return self.left(hidden) + self.right(hidden)

    torch.manual_seed(0)
    model, data = Twice(), batches(5)
    plan = make_plan(model, data[0][0][:2])
    configs = [PruningConfig(widths={"first": 4}, reconstruct=reconstruct) for reconstruct in (False, True)]
    plain, fitted = (
        prune(model, plan, config, example_inputs=data[0][0][:2], calibration=lambda: data).model for config in configs
    )
    torch.testing.assert_close(fitted.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert fitted.left.weight is fitted.right.weight


def test_a_layer_that_does_something_else_with_its_weight_stays_as_it_is() -> None:
    class Squared(Transposed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).square()

    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(5, 6), Squared(6, 4)), batches(5)
    plan = make_plan(model, data[0][0][:2])
    plain, fitted = (
        prune(
            model,
            plan,
            PruningConfig(widths={"0": 4}, reconstruct=reconstruct),
            example_inputs=data[0][0][:2],
            calibration=lambda: data,
        ).model
        for reconstruct in (False, True)
    )
    torch.testing.assert_close(fitted.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_without_data_it_says_so() -> None:
    torch.manual_seed(0)
    model, group, data = linear()
    plan = make_plan(model, data[0][0][:2])
    with pytest.raises(PruningError, match="reconstruction needs calibration batches"):
        prune(model, plan, PruningConfig(widths={group: 4}, reconstruct=True), example_inputs=data[0][0][:2])


def test_obs_takes_the_channel_first_that_others_stand_for_and_then_the_least_harmful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("autoprune.pruning.channels.importance.obs.RIDGE", 1e-3)
    torch.manual_seed(0)
    model, group, data = linear()
    with torch.no_grad():
        model[0].weight[1] *= 1e-3
        model[0].bias[1] = 0
    plan = make_plan(model, data[0][0][:2])
    kept = []
    for width in (5, 4):
        config = PruningConfig(widths={group: width}, criterion="obs")
        pruned = prune(model, plan, config, example_inputs=data[0][0][:2], calibration=lambda: data).model
        equal = (model[0].weight.unsqueeze(1) == pruned[0].weight.unsqueeze(0)).all(2)
        kept.append(set(equal.any(1).nonzero().flatten().tolist()))
    assert kept[1] < kept[0] < set(range(6))
    assert 1 not in kept[1]
    assert len(kept[1] & {0, 5}) == 1


@pytest.mark.parametrize("block", [1, 3, 100])
@pytest.mark.parametrize("make", [linear, tokens, conv1d, conv2d, circular])
def test_obs_scores_are_the_errors_that_are_left_when_the_layer_behind_is_fitted(
    make: Callable[[], tuple[nn.Module, str, Batches]], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obs, "BLOCK", block)
    torch.manual_seed(0)
    model, name, data = make()
    (group,) = [group for group in analyse(model, data[0][0][:2]).groups if group.name == name]
    scores = channel_scores(model, [group], "obs", calibration=lambda: data)[name]
    ((layer, dim),) = {(key.removesuffix(".weight"), dim) for key, dim in group.consumers}
    moments = inputs_on(model, lambda: data, seed=0).moments({layer: dim})[layer]
    weight = model.get_parameter(f"{layer}.weight").detach().double().flatten(1)
    covariance = moments.covariance
    covariance = covariance + obs.RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    total = (weight @ covariance * weight).sum()
    order = scores.argsort()
    for n_lost in range(1, len(order) + 1):
        lost = torch.zeros(len(covariance), dtype=torch.bool)
        lost[moments.columns(order[:n_lost]).flatten()] = True
        fit = torch.linalg.solve(covariance[~lost][:, ~lost], covariance[~lost][:, lost])
        unexplained = covariance[lost][:, lost] - covariance[lost][:, ~lost] @ fit
        error = (weight[:, lost] @ unexplained * weight[:, lost]).sum() / total
        assert float(scores[order[n_lost - 1]]) == pytest.approx(float(error), rel=1e-6)


@pytest.mark.parametrize("make", [linear, conv2d, flattened])
@pytest.mark.parametrize("frozen", [("weight", "bias"), ("bias",)])
def test_frozen_weights_and_biases_are_not_fitted(
    make: Callable[[], tuple[nn.Module, str, Batches]], frozen: tuple[str, ...]
) -> None:
    model, group, data = make()
    last = list(model.children())[-1]
    for name, parameter in last.named_parameters():
        parameter.requires_grad_(name not in frozen)
    plan = make_plan(model, data[0][0][:2])
    config = PruningConfig(widths={group: 5}, criterion="l1", reconstruct=True)
    found = prune(model, plan, config, example_inputs=data[0][0][:2], calibration=lambda: data)
    path = f"{len(model) - 1}"
    behind = found.model.get_submodule(path)
    sliced = last.weight.flatten()[found.kept_indices[f"{path}.weight"]]
    assert torch.equal(behind.weight, sliced) == ("weight" in frozen)
    assert behind.weight.requires_grad == ("weight" not in frozen)
    if last.bias is not None:
        assert torch.equal(behind.bias, last.bias)


@pytest.mark.parametrize("make", [linear, conv2d])
def test_a_layer_that_the_forward_pass_freezes_is_not_fitted(
    make: Callable[[], tuple[nn.Module, str, Batches]],
) -> None:
    model, group, data = make()
    plan = make_plan(model, data[0][0][:2])
    path = f"{len(model) - 1}"
    last = model.get_submodule(path)
    last.register_forward_pre_hook(lambda module, _: module.requires_grad_(False) and None)
    config = PruningConfig(widths={group: 5}, criterion="l1", reconstruct=True)
    found = prune(model, plan, config, example_inputs=data[0][0][:2], calibration=lambda: data)
    behind = found.model.get_submodule(path)
    assert torch.equal(behind.weight, last.weight.flatten()[found.kept_indices[f"{path}.weight"]])
