"""The preflight: which groups it finds, which it leaves out and why, and what it says they shrink."""

import json
from collections.abc import Callable

import pytest
import torch
from pruning_networks import (
    Concat,
    ConvShortcutResNet,
    Depthwise,
    LayerNormMLP,
    OptionAResNet,
    TiedMLP,
    conv_flatten,
    mlp,
    settled,
)
from torch import nn

from autoprune.errors import PruningError
from autoprune.pruning.apply import prune
from autoprune.pruning.blocks.removed import RemovedBlock
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.planner import make_plan
from autoprune.trial import PruningConfig

pytestmark = pytest.mark.xdist_group("pruning_plan")  # its fixtures take long: one process makes them

DIGIT = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet20_plan() -> PruningPlan:
    torch.manual_seed(0)
    return make_plan(settled(OptionAResNet()), torch.randn(1, 3, 32, 32))


def test_mlp_of_every_tutorial_has_one_group() -> None:
    plan = make_plan(nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 10)), torch.randn(4, 10))
    assert [(group.name, group.width, group.layers) for group in plan.groups] == [("0", 20, ("0", "2"))]
    assert plan.weight_layers == {"0.weight": 200, "2.weight": 200}
    assert plan.shrink == {"0.weight": {0: {"0": 1}}, "0.bias": {0: {"0": 1}}, "2.weight": {1: {"0": 1}}}
    assert [entry.module for entry in plan.left_out] == ["2"]
    assert "the network's output" in plan.left_out[0].reason


def test_resnet20_with_padded_shortcuts(resnet20_plan: PruningPlan) -> None:
    inner = {f"layer{s}.{b}.conv1": w for s, w in ((1, 16), (2, 32), (3, 64)) for b in range(3)}
    # The padding stands in the code as a number, so of a later stage only mirrored pairs of channels can leave.
    stages = {"conv1": 16, "layer2.0.conv2": 8, "layer3.0.conv2": 16}
    assert resnet20_plan.group_widths == inner | stages
    assert {entry.module for entry in resnet20_plan.left_out} == {"linear"}
    assert set(resnet20_plan.block_names) == {f"layer{s}.{b}" for s in (1, 2, 3) for b in range(3)} - {
        "layer2.0",
        "layer3.0",
    }


def test_plan_survives_json(resnet20_plan: PruningPlan) -> None:
    assert PruningPlan.from_dict(json.loads(json.dumps(resnet20_plan.to_dict()))) == resnet20_plan


@pytest.mark.parametrize(
    ("build", "groups"),
    [
        (mlp, {"1": 20, "3": 14}),
        (conv_flatten, {"0": 6, "4": 8}),
        (Depthwise, {"expand.0": 12, "squeeze": 4, "project": 6}),
        (Concat, {"left": 6, "right": 10, "mix": 5}),
        (TiedMLP, {"first": 12}),
        (
            ConvShortcutResNet,
            {
                "conv1": 8,
                "layer1.0.conv1": 8,
                "layer1.1.conv1": 8,
                "layer2.0.conv1": 12,
                "layer2.0.conv2": 12,
                "layer2.1.conv1": 12,
            },
        ),
    ],
)
def test_groups(build: Callable[[], nn.Module], groups: dict[str, int]) -> None:
    assert make_plan(build(), DIGIT).group_widths == groups


def test_each_channel_feeds_several_inputs_behind_a_flatten() -> None:
    assert make_plan(conv_flatten(), DIGIT).shrink["7.weight"] == {1: {"4": 16}}


def test_layer_norm_keeps_its_channels() -> None:
    plan = make_plan(LayerNormMLP(), DIGIT)
    assert plan.group_widths == {"second": 12}
    (reason,) = [entry.reason for entry in plan.left_out if entry.module == "first"]
    assert "has statistics taken over its channels" in reason


def test_channels_that_leave_in_bundles() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(64, 24)
            self.head = nn.Linear(12, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            value, gate = self.gate(x.flatten(1)).chunk(2, 1)
            return self.head(value * torch.sigmoid(gate))

    plan = make_plan(Gated(), DIGIT)
    assert plan.group_widths == {"gate": 12}
    assert plan.shrink["gate.weight"] == {0: {"gate": 2}}


def test_tied_weights_lose_the_same_channels() -> None:
    class LanguageModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 16)
            self.up = nn.Linear(16, 12)
            self.down = nn.Linear(12, 16)
            self.head = nn.Linear(16, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.down(torch.relu(self.up(self.embed(tokens)))))

    plan = make_plan(LanguageModel(), torch.randint(0, 10, (2, 5)))
    assert plan.group_widths == {"embed": 16, "up": 12}
    assert plan.shrink["embed.weight"] == plan.shrink["head.weight"] == {1: {"embed": 1}}


def test_network_without_groups_still_has_blocks_and_weights() -> None:
    class PairLinear(nn.Linear):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
            return super().forward(x), None

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = PairLinear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.inner(x)[0]

    plan = make_plan(nn.Sequential(nn.Flatten(), Residual(), nn.Linear(64, 10)), DIGIT)
    assert plan.groups == ()
    assert plan.block_names == ("1",)
    assert set(plan.weight_layers) == {"1.inner.weight", "2.weight"}
    assert "meets a tensor whose size is constant" in plan.left_out[0].reason


def test_network_that_needs_float32_is_proved_in_float32() -> None:
    class Float32Only(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.float())

    assert make_plan(Float32Only(*mlp()), DIGIT).group_widths == {"1": 20, "3": 14}


def test_skipped_modules_keep_outputs_weights_and_blocks() -> None:
    plan = make_plan(ConvShortcutResNet(), DIGIT, skip=lambda name: name in ("conv1", "layer1.0.conv2", "layer2.1.bn1"))
    assert "conv1" not in plan.group_widths
    assert "layer1.0.conv1" in plan.group_widths
    assert plan.block_names == ("layer1.1",)
    assert "conv1.weight" not in plan.weight_layers
    assert {"conv1", "layer1.0", "layer2.1"} <= {entry.module for entry in plan.left_out if "as asked" in entry.reason}


def test_model_is_not_touched_and_global_seed_neither() -> None:
    model = settled(ConvShortcutResNet()).train()
    model.conv1.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    make_plan(model, DIGIT, measure_loss=lambda network: network.eval()(DIGIT).square().mean().item())
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.conv1.parameters()] == [False]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_network_that_does_not_run_is_an_error() -> None:
    with pytest.raises(PruningError, match="forward pass fails"):
        make_plan(mlp(), torch.randn(1, 7))


def test_groups_that_pass_alone_but_not_together() -> None:
    class Jealous(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self[1].out_features < 20 and self[3].out_features < 14:
                raise ValueError("one narrow layer is enough")
            return super().forward(x)

    plan = make_plan(Jealous(*mlp()), DIGIT)
    assert plan.group_widths == {"1": 20}
    assert {group for dims in plan.shrink.values() for losses in dims.values() for group in losses} == {"1"}
    (reason,) = [entry.reason for entry in plan.left_out if entry.module == "3"]
    assert "passes alone" in reason
    assert "one narrow layer is enough" in reason


def test_blocks_that_can_go_alone_but_not_together() -> None:
    class Needy(ConvShortcutResNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if all(isinstance(block, RemovedBlock) for block in self.layer1):
                raise ValueError("no block left")
            return super().forward(x)

    plan = make_plan(Needy(), DIGIT)
    assert set(plan.block_names) == {"layer1.0", "layer2.1"}
    assert any(entry.module == "layer1.1" and "no block left" in entry.reason for entry in plan.left_out)


class Eights(nn.Module):
    """Two residual blocks whose kernels want eights, as grouped products do, or have one eight only."""

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(12, width), nn.Linear(width, 12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.up.out_features % 8:
                raise ValueError("eights")
            return x + torch.as_tensor(self.down(torch.relu(self.up(x))))

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(self.Block(width), self.Block(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.blocks(x))


def test_channels_in_eights_in_a_block_that_is_removed() -> None:
    model, inputs = Eights(24), torch.randn(2, 12)
    plan = make_plan(model, inputs)
    assert [(group.name, group.multiple) for group in plan.groups] == [("blocks.0.up", 8), ("blocks.1.up", 8)]
    assert set(plan.block_names) == {"blocks.0", "blocks.1"}
    config = PruningConfig(widths={"blocks.0.up": 8, "blocks.1.up": 16}, removed_blocks=("blocks.0",))
    pruned = prune(model, plan, config, example_inputs=inputs)
    assert pruned.widths == {"blocks.0.up": 0, "blocks.1.up": 16}


def test_a_single_eight_is_no_group() -> None:
    plan = make_plan(Eights(8), torch.randn(2, 12))
    assert plan.groups == ()
    assert any("eights" in item.reason for item in plan.left_out)


def test_an_unknown_operation_is_named_and_costs_the_rest_nothing() -> None:
    class SingularValues(nn.Module):
        """A decomposition has no rule: what enters it stays, the layer before goes on as ever."""

        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.head = nn.Linear(64, 20), nn.Linear(20, 14), nn.Linear(2, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.down(torch.relu(self.up(x.flatten(1))))
            return torch.as_tensor(self.head(torch.linalg.svdvals(x)[None].expand(2, -1)))

    plan = make_plan(SingularValues(), DIGIT.repeat(2, 1, 1, 1))
    assert plan.group_widths == {"up": 20}
    (reason,) = [entry.reason for entry in plan.left_out if entry.module == "down"]
    assert "not understood" in reason
    assert "_linalg_svd" in reason


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_python_that_branches_on_the_data(sign: float) -> None:
    class Branches(nn.Module):
        """Loops over values and branches on them: of two layers the example runs one."""

        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.head = nn.Linear(64, 20), nn.Linear(20, 14), nn.Linear(14, 10)
            self.positive, self.negative = nn.Linear(14, 14), nn.Linear(14, 14)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            layer = self.positive if x.mean() > 0 else self.negative
            x = torch.relu(self.up(x.flatten(1)))
            while x.abs().max() > 1:
                x = x / 2
            return torch.as_tensor(self.head(layer(self.down(x))))

    plan = make_plan(Branches(), sign * DIGIT.abs())
    ran, other = ("positive", "negative") if sign > 0 else ("negative", "positive")
    assert plan.group_widths == {"up": 20, "down": 14, ran: 14}
    (reason,) = [entry.reason for entry in plan.left_out if entry.module == other]
    assert "takes no part in the forward pass; but the network looks at values" in reason
    assert "what it reads may have been cut" in reason
