"""What can't be planned or pruned from Python is told in a sentence, not by a traceback out of torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import autoprune
from autoprune.api import ModelPlan
from autoprune.errors import PruningError

pytestmark = pytest.mark.xdist_group("api_plan_mistakes")  # its fixtures take long: one process makes them

ROWS = torch.randn(4, 6)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return network()


def in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return network()


def exported() -> nn.Module:
    return torch.export.export(network(), (ROWS,)).module()


def scripted() -> nn.Module:
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.script"):
        return torch.jit.script(network())


class OneLength(nn.Module):
    """Runs on four examples and no other number, so that the cost of one can't be counted."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.layer(x).reshape(4, 12)))


@pytest.mark.parametrize(
    ("build", "inputs", "message"),
    [
        (lambda: "resnet18", ROWS, r"the model must be a torch\.nn\.Module, got str"),
        (lambda: nn.Linear, ROWS, r"the model must be a torch\.nn\.Module, got the class Linear"),
        (on_meta, ROWS, r"0\.weight is on the meta device, which holds no values\. Load the weights first"),
        (lambda: nn.Sequential(nn.LazyLinear(12), nn.ReLU()), ROWS, r"0\.weight has no shape yet\. Run .* once"),
        (in_inference_mode, ROWS, r"0\.weight was made in inference mode"),
        (scripted, ROWS, "a TorchScript model can't be changed"),
        (exported, ROWS, "an exported program can't be changed"),
        (network, ROWS.double(), "the forward pass fails on one example.*RuntimeError"),
        (OneLength, ROWS, "the forward pass fails on one example"),
        (network, torch.randn(0, 6), "must hold at least one example"),
    ],
)  # fmt: skip
def test_models_and_inputs_that_cannot_be_planned(build: Callable[[], Any], inputs: torch.Tensor, message: str) -> None:
    model = build()
    with pytest.raises(PruningError, match=message):
        autoprune.plan(model, inputs)


@pytest.fixture(scope="module")
def plan() -> ModelPlan:
    return autoprune.plan(network(), ROWS)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda plan: plan.prune("0.5"), r"ratio must be a number in \[0, 1\) or group -> number, got '0\.5'"),
        (lambda plan: plan.prune([0.5]), r"ratio must be a number in \[0, 1\) or group -> number, got \[0\.5\]"),
        (lambda plan: plan.prune({"0": "half"}), r"ratio of '0' must be in \[0, 1\), got 'half'"),
        (lambda plan: plan.prune({"0": float("nan")}), r"ratio of '0' must be in \[0, 1\), got nan"),
        (lambda plan: plan.prune(widths={"0": 6.0}), r"widths\['0'\]: .* must be a whole number, got 6\.0"),
        (lambda plan: plan.prune(widths={"0": "6"}), r"widths\['0'\]: .* must be a whole number, got '6'"),
        (lambda plan: plan.prune(0.5, scope="all"), "unknown scope 'all'. Known: global, group"),
        (lambda plan: plan.prune(0.5, scope="global", criterion="tailor"), "did you mean 'taylor'"),
        (lambda plan: plan.cost({"0": 0}), r"group '0' must keep 1 to 12 channels, got 0"),
        (lambda plan: plan.cost({"0": 13}), r"group '0' must keep 1 to 12 channels, got 13"),
        (lambda plan: plan.prune(0.5, "taylor", [ROWS]), r"batches must be pairs of inputs and targets, got Tensor"),
        (
            lambda plan: plan.sensitivity(lambda model: 1.0, kept_shares=[1.5]),
            r"kept shares must be in \(0, 1\), got 1",
        ),
    ],
)
def test_wrong_arguments_of_a_plan(plan: ModelPlan, attempt: Callable[[ModelPlan], Any], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        attempt(plan)


def test_a_model_without_a_gradient_is_told_for_a_criterion_that_needs_one() -> None:
    class Closed(nn.Sequential):
        @torch.no_grad()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    plan = autoprune.plan(Closed(*network()), ROWS)
    with pytest.raises(PruningError, match=r"taylor.*the loss has no gradient"):
        plan.prune(0.5, "taylor", [(ROWS, torch.tensor([0, 1, 2, 0]))])


class ResponseNorm(nn.Module):
    """Divides each channel's length by the mean length of all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.square().sum(0, keepdim=True).sqrt()
        return x * length / length.mean(-1, keepdim=True)


class StateOfAFixedWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(6, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.cells(x[None], torch.zeros(1, len(x), 12))[0][-1]))


class Apart(nn.Sequential):
    """Its first layer runs for other inputs only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self[2](self[1](x).softmax(-1)))


def between(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), norm, nn.Linear(12, 3))


class Doubled(nn.Linear):
    """A residual block, and nothing else that could leave."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: between(ResponseNorm()), r"0: .*statistics.*mean in 1.*hidden_sizes=True"),
        (lambda: between(nn.LayerNorm(12)), r"0: .*statistics.*hidden_sizes=True"),
        (StateOfAFixedWidth, r"cells: the forward pass fails \(.*hidden size.*If a width is written in the code"),
        (lambda: Apart(nn.Linear(6, 6), nn.Linear(6, 12), nn.Linear(12, 3)), r"1: its output has its entries compared"),
        (lambda: nn.Linear(6, 3), r"the network: its output is the network's output.*left_out has all reasons"),
        (lambda: nn.Sequential(Doubled(6, 6), Doubled(6, 6)), r"Blocks can be removed: blocks=\['0'\]"),
    ],
)  # fmt: skip
def test_a_ratio_of_a_network_that_can_not_lose_channels(build: Callable[[], nn.Module], message: str) -> None:
    plan = autoprune.plan(build(), ROWS)
    assert plan.groups == ()
    for attempt in (
        lambda: plan.prune(0.5),
        lambda: plan.prune(0.5, scope="global"),
        lambda: plan.widths_at(flops=0.5),
    ):
        with pytest.raises(PruningError, match=f"no channels of this network can be pruned.*{message}"):
            attempt()
    plan.prune(0.0)
