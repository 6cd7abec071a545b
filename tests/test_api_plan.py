"""The plan of a model from Python, on networks that autoprune did not write."""

import copy
from collections import UserDict

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import autoprune
from autoprune.cost import count_macs
from autoprune.errors import PruningError


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 16), nn.ReLU(),
        nn.Linear(16, 5),
    )  # fmt: skip


def count(model: nn.Module, inputs: torch.Tensor) -> tuple[int, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs[:1])
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def test_groups_shares_and_costs() -> None:
    model, inputs = network(), torch.randn(3, 1, 8, 8)
    plan = autoprune.plan(model, inputs)
    assert {group.name: group.width for group in plan.groups} == {"0": 8, "4": 16}
    first = plan.groups[0]
    assert first.layers == ("0", "1", "4")
    assert first.params_share == pytest.approx((80 + 16 + 512 * 16) / sum(p.numel() for p in model.parameters()))
    assert [item.module for item in plan.left_out] == ["6"]
    widths = plan.widths({"0": 0.5, "4": 0.9})
    assert widths == {"0": 4, "4": 2}
    params, macs = count(plan.prune({"0": 0.5, "4": 0.9}), inputs)
    assert (plan.cost(widths).params, plan.cost(widths).macs) == (params, macs)


@pytest.mark.parametrize("criterion", ["l1", "taylor", "activation", "random"])
def test_the_given_model_is_untouched(criterion: str) -> None:
    model, inputs = network(), torch.randn(6, 1, 8, 8)
    before = copy.deepcopy(model.state_dict())
    data = [(inputs, torch.arange(6) % 5)]
    pruned = autoprune.plan(model, inputs[:2]).prune(0.5, criterion, data)
    assert pruned(inputs).shape == (6, 5)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in model.parameters()) / 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Named(nn.Module):
    """Takes keyword inputs and gives a dict, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 4)

    def forward(self, tokens: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.down(torch.relu(self.up(self.embed(tokens)))) * scale}


def test_dict_inputs_and_outputs() -> None:
    inputs = {"tokens": torch.randint(0, 20, (2, 7)), "scale": torch.ones(2, 1, 1)}
    plan = autoprune.plan(Named(), inputs)
    assert {group.name: group.width for group in plan.groups} == {"embed": 12, "up": 24}
    assert plan.prune(0.25)(**inputs)["logits"].shape == (2, 7, 4)


def test_mistakes_are_named() -> None:
    plan = autoprune.plan(network(), torch.randn(2, 1, 8, 8))
    with pytest.raises(PruningError, match=r"unknown group 'conv'\. Known: 0, 4"):
        plan.prune({"conv": 0.5})
    with pytest.raises(PruningError, match=r"ratio of '0' must be in \[0, 1\), got 1"):
        plan.prune({"0": 1})
    with pytest.raises(PruningError, match="needs calibration batches"):
        plan.prune(0.5, "taylor")


class Recurrent(nn.Module):
    """A recurrent layer between two linear ones."""

    def __init__(self, kind: type[nn.RNNBase], *, bidirectional: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 10)
        self.rnn = kind(10, 8, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(16 if bidirectional else 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.rnn(torch.relu(self.embed(x)))[0][:, -1]))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_the_cost_of_a_narrower_recurrent_layer(kind: type[nn.RNNBase], gates: int, bidirectional: bool) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 5, 6)
    plan = autoprune.plan(Recurrent(kind, bidirectional=bidirectional), inputs)
    assert {group.name: group.width for group in plan.groups} == {"embed": 10, "rnn": 8}
    pruned = plan.prune({"embed": 0.5, "rnn": 0.5})
    assert pruned.rnn.hidden_size == 4
    directions = 2 if bidirectional else 1
    macs = 5 * 6 * 5 + 5 * directions * gates * 4 * (5 + 4) + directions * 4 * 3
    assert plan.cost({"embed": 5, "rnn": 4}).macs == count_macs(pruned, inputs) == macs


class Positions(nn.Module):
    """A slice of a table of learned positions goes through a layer, as in DeBERTa."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.up, self.head = nn.Parameter(torch.randn(9, 12)), nn.Linear(12, 20), nn.Linear(20, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(torch.relu(self.up(self.table[1:7]) + x[:, None])))


def test_the_cost_of_parameters_that_go_through_a_layer() -> None:
    inputs = torch.randn(2, 1)
    plan = autoprune.plan(Positions(), inputs)
    assert {group.name: group.width for group in plan.groups} == {"up": 20}
    # x is added to every channel, so none is zero behind it; the head reads it as it is.
    pruned = plan.prune(0.5)
    assert plan.cost({"up": 10}).macs == 6 * 12 * 10 + 6 * 10 * 5 == count(pruned.requires_grad_(False), inputs)[1]


def test_a_plan_leaves_frozen_parameters_frozen_and_no_others() -> None:
    model = Positions()
    model.up.requires_grad_(False)
    autoprune.plan(model, torch.randn(2, 1))
    assert [p.requires_grad for p in model.parameters()] == [True, False, False, True, True]


@pytest.mark.parametrize("criterion", ["l2", "fisher"])
def test_widths_at_a_share_of_the_cost(criterion: str) -> None:
    model, inputs = network(), torch.randn(6, 1, 8, 8)
    plan, data = autoprune.plan(model, inputs[:2]), [(inputs, torch.arange(6) % 5)]
    dense_params, dense_macs = count(model, inputs)
    widths = plan.widths_at(flops=0.4, criterion=criterion, data=data)
    _, macs = count(plan.prune(widths=widths, criterion=criterion, data=data), inputs)
    one_more = max(plan.cost(widths | {name: width + 1}).macs for name, width in widths.items())
    assert macs <= 0.4 * dense_macs < one_more
    widths = plan.widths_at(params=0.25, criterion=criterion, data=data)
    params, _ = count(plan.prune(widths=widths), inputs)
    assert 0.2 * dense_params < params <= 0.25 * dense_params


def test_a_ratio_of_all_channels_together() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[:4], model[0].bias[:4] = 0, 0
        model[1].weight[:4], model[1].bias[:4] = 0, 0
        model[4].weight[:, : 4 * 64] = 0
    plan = autoprune.plan(model, torch.randn(2, 1, 8, 8))
    pruned = plan.prune(4 / 24, scope="global")
    assert (pruned[0].out_channels, pruned[4].out_features) == (4, 16)
    assert sum(plan.prune(0.5, scope="global")[layer].weight.shape[0] for layer in (0, 4)) == 12


def test_mistakes_of_scope_and_shares_are_named() -> None:
    plan = autoprune.plan(network(), torch.randn(2, 1, 8, 8))
    with pytest.raises(PruningError, match="either a ratio or widths must be given, got ratio=None"):
        plan.prune()
    with pytest.raises(PruningError, match=r"ratio must be one number in \[0, 1\), got \{'0': 0.5\}"):
        plan.prune({"0": 0.5}, scope="global")
    with pytest.raises(PruningError, match="with scope='global', no blocks can be removed in the same call"):
        plan.prune(0.5, blocks=["0"], scope="global")
    with pytest.raises(PruningError, match="one of flops and params must be given, got flops="):
        plan.widths_at(flops=0.5, params=0.5)
    with pytest.raises(PruningError, match=r"flops must be a share in \(0, 1\], got 1.5"):
        plan.widths_at(flops=1.5)
    with pytest.raises(PruningError, match=r"params can't fall to 0.001 of the model: 0\.0\d+ are left"):
        plan.widths_at(params=0.001)


def test_inputs_in_a_mapping_of_its_own_kind_as_a_tokenizer_gives() -> None:
    inputs = UserDict({"tokens": torch.randint(0, 20, (2, 7)), "scale": torch.ones(2, 1, 1)})
    plan = autoprune.plan(Named(), inputs)
    assert {group.name: group.width for group in plan.groups} == {"embed": 12, "up": 24}
    data = [(inputs, torch.zeros(2, 7, dtype=torch.long))]
    pruned = plan.prune(0.25, "taylor", data, loss=lambda outputs, targets: outputs["logits"].square().mean())
    assert pruned(**inputs)["logits"].shape == (2, 7, 4)


class Cast(nn.Module):
    """Computes with a cast copy of its weights, once by autocast and once by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mix, self.head = nn.Linear(6, 12), nn.Linear(12, 8, bias=False), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = torch.relu(self.up(x))
        x = nn.functional.linear(x.half(), self.mix.weight.half())
        return torch.as_tensor(self.head(x.float()))


def test_the_cost_of_weights_that_are_cast_before_they_are_used() -> None:
    plan = autoprune.plan(Cast(), torch.randn(2, 6))
    assert {group.name: group.width for group in plan.groups} == {"up": 12, "mix": 8}
    assert plan.cost({"up": 3, "mix": 5}).macs == 6 * 3 + 3 * 5 + 5 * 3
    assert plan.cost({"up": 3, "mix": 5}).macs == count_macs(plan.prune({"up": 0.75, "mix": 0.375}), torch.randn(1, 6))
