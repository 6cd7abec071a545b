"""The table's cost is that of networks really built at these widths, by torch's own counter and by plain counting."""

import json
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.cost import CostTable, build_table, count_macs
from autoprune.errors import PruningError
from autoprune.zoo import cnn6, mlp, resnet20, small_cnn


def true_cost(model: nn.Module, inputs: torch.Tensor) -> tuple[int, int, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(inputs[:1])
    state = model.state_dict().values()
    return (
        sum(parameter.numel() for parameter in model.parameters()),
        counter.get_total_flops() // 2,
        sum(tensor.numel() * tensor.element_size() for tensor in state),
    )


def table_of(model: nn.Module, inputs: torch.Tensor, shrink: dict[str, dict], blocks: list[str]) -> CostTable:
    """The table of a plan with these losses; a group is as wide as the smallest dimension that it alone shrinks."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict(keep_vars=True).items()}
    widths: dict[str, int] = {}
    for name, dims in shrink.items():
        for dim, groups in dims.items():
            for group, lost in groups.items():
                if name in shapes and dim < len(shapes[name]):
                    room = shapes[name][dim] // lost
                    widths[group] = min(widths.get(group, room), room)
    return build_table(model, inputs, widths=widths, shrink=shrink, blocks=blocks)


def channel(group: str, producer: str, norm: str | None, consumer: str, per_channel: int = 1) -> dict[str, dict]:
    """What a channel of a convolution or linear layer takes along in it, its norm, and the next layer."""
    lost = {f"{producer}.weight": {0: {group: 1}}, f"{consumer}.weight": {1: {group: per_channel}}}
    if norm:
        lost |= {f"{norm}.{name}": {0: {group: 1}} for name in ("weight", "bias", "running_mean", "running_var")}
    return lost


def merged(*parts: dict[str, dict]) -> dict[str, dict]:
    shrink: dict[str, dict] = {}
    for part in parts:
        for name, dims in part.items():
            for dim, groups in dims.items():
                shrink.setdefault(name, {}).setdefault(dim, {}).update(groups)
    return shrink


CNN6 = [f"stage{stage}.conv{position}" for stage in (1, 2, 3) for position in (1, 2)]


def cnn6_shrink() -> dict[str, dict]:
    consumers = [*CNN6[1:], "head"]
    return merged(
        *(
            channel(conv, conv, conv.replace("conv", "bn"), consumer)
            for conv, consumer in zip(CNN6, consumers, strict=True)
        )
    )


@pytest.mark.parametrize("widths", [(16, 16, 32, 32, 64, 64), (3, 16, 7, 1, 64, 5), (1, 1, 1, 1, 1, 1)])
def test_plain_cnn_at_other_widths(widths: tuple[int, ...]) -> None:
    inputs = torch.randn(3, 1, 28, 28)
    table = table_of(cnn6(), inputs, cnn6_shrink(), blocks=())
    assert table.widths == dict(zip(CNN6, (16, 16, 32, 32, 64, 64), strict=True))
    assert table.cost(dict(zip(CNN6, widths, strict=True))) == true_cost(cnn6(widths), inputs)
    assert table.other_macs == {}


def test_mlp_with_biases() -> None:
    shrink = merged(
        channel("linear1", "linear1", None, "linear2"),
        channel("linear2", "linear2", None, "head"),
        {"linear1.bias": {0: {"linear1": 1}}, "linear2.bias": {0: {"linear2": 1}}},
    )
    inputs = torch.randn(2, 10)
    table = table_of(mlp(10, (20, 8), 3), inputs, shrink, ())
    assert table.cost({"linear1": 7}) == true_cost(mlp(10, (7, 8), 3), inputs)


def special(width: int) -> nn.Sequential:
    """Depthwise, grouped and transposed convolutions, and several features a channel after the flattening."""
    return nn.Sequential(
        nn.Conv2d(2, width, 3),
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.ConvTranspose2d(width, 6, 2, stride=2),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.Flatten(),
        nn.Linear(4 * 18 * 18, 5),
    )


def test_grouped_depthwise_and_transposed_convolutions() -> None:
    inputs = torch.randn(2, 2, 12, 12)
    one = {0: {"0": 1}}
    shrink = {"0.weight": one, "0.bias": one, "1.weight": one, "1.bias": one, "2.weight": one}
    assert table_of(special(8), inputs, shrink, ()).cost({"0": 3}) == true_cost(special(3), inputs)


class Flattened(nn.Module):
    """A convolution whose every channel is nine features of the linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, width, 2)
        self.linear = nn.Linear(9 * width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(x).flatten(1))


def test_several_features_a_channel() -> None:
    inputs = torch.randn(2, 1, 10)
    shrink = channel("conv", "conv", None, "linear", per_channel=9) | {"conv.bias": {0: {"conv": 1}}}
    table = table_of(Flattened(6), inputs, shrink, ())
    assert table.widths == {"conv": 6}
    assert table.cost({"conv": 2}) == true_cost(Flattened(2), inputs)


class Concatenated(nn.Module):
    """One layer reads the channels of two."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, left, 1, bias=False)
        self.right = nn.Conv2d(1, right, 1, bias=False)
        self.both = nn.Conv2d(left + right, 3, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.both(torch.cat([self.left(x), self.right(x)], dim=1))


def test_two_groups_in_one_dimension() -> None:
    inputs = torch.randn(1, 1, 4, 4)
    shrink = merged(channel("left", "left", None, "both"), channel("right", "right", None, "both"))
    table = table_of(Concatenated(5, 7), inputs, shrink, ())
    assert table.widths == {"left": 5, "right": 7}
    assert table.cost({"left": 2, "right": 6}) == true_cost(Concatenated(2, 6), inputs)


def resnet_shrink() -> dict[str, dict]:
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    return merged(*(channel(f"{b}.conv1", f"{b}.conv1", f"{b}.bn1", f"{b}.conv2") for b in blocks))


def test_resnet_with_removed_blocks() -> None:
    inputs = torch.randn(2, 3, 32, 32)
    table = table_of(resnet20(), inputs, resnet_shrink(), ["layer1.1", "layer3.2"])
    model = resnet20()
    block = model.layer2[0]
    block.conv1, block.bn1 = nn.Conv2d(16, 5, 3, 2, 1, bias=False), nn.BatchNorm2d(5)
    block.conv2 = nn.Conv2d(5, 32, 3, 1, 1, bias=False)
    model.layer1[1] = nn.Identity()
    model.layer3[2] = nn.Identity()
    cost = table.cost({"layer2.0.conv1": 5, "layer3.2.conv1": 0}, ["layer1.1", "layer3.2"])
    assert cost == true_cost(model, inputs)


def test_a_candidate_takes_less_than_a_millisecond() -> None:
    table = table_of(resnet20(), torch.randn(1, 3, 32, 32), resnet_shrink(), ["layer1.1"])
    widths = {group: width // 2 for group, width in table.widths.items()}
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        table.cost(widths, ["layer1.1"])
        best = min(best, time.perf_counter() - start)
    assert best < 0.001


def test_json_round_trip() -> None:
    table = table_of(resnet20(), torch.randn(1, 3, 32, 32), resnet_shrink(), ["layer1.1"])
    again = CostTable.from_dict(json.loads(json.dumps(table.to_dict())))
    assert again == table
    assert again.cost({"layer1.0.conv1": 3}, ["layer1.1"]) == table.cost({"layer1.0.conv1": 3}, ["layer1.1"])


class Tied(nn.Module):
    """An embedding whose matrix is the output layer's too, and a buffer outside the state dict."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("positions", torch.zeros(100), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(tokens))


@pytest.mark.parametrize("name", ["embedding.weight", "head.weight"])
def test_tied_parameters_count_once(name: str) -> None:
    tokens = torch.randint(11, (2, 5))
    table = table_of(Tied(8), tokens, {name: {1: {"width": 1}}}, ())
    params, macs, tensor_bytes = table.cost({"width": 3})
    assert (params, macs, tensor_bytes) == (33, 5 * 33, 4 * 33)


def test_attention_products_are_a_constant_of_their_module() -> None:
    n_tokens, width, hidden = 10, 32, 64
    model = nn.Sequential(nn.TransformerEncoderLayer(width, 4, hidden, batch_first=True))
    inputs = torch.randn(2, n_tokens, width)
    table = table_of(model, inputs, {"0.linear1.weight": {0: {"0": 1}}, "0.linear2.weight": {1: {"0": 1}}}, ["0"])
    products = 2 * n_tokens * n_tokens * width
    assert table.other_macs == {"0.self_attn": products}
    assert table.cost({"0": 10}).macs == products + n_tokens * (4 * width * width + 2 * width * 10)
    assert table.cost({"0": 0}, ["0"]).macs == 0


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda table: table.cost({"stage9": 1}), r"unknown group 'stage9'. Known: stage1.conv1"),
        (lambda table: table.cost({"stage1.conv1": 17}), "'stage1.conv1' has 16 channels, can't keep 17"),
        (lambda table: table.cost({"stage1.conv1": -1}), "can't keep -1"),
        (lambda table: table.cost({}, ["stage1"]), "unknown blocks stage1. Known: none"),
    ],
)
def test_errors(attempt: Callable[[CostTable], object], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        attempt(table_of(cnn6(), torch.randn(1, 1, 28, 28), cnn6_shrink(), ()))


def test_a_plan_of_another_network() -> None:
    with pytest.raises(PruningError, match=r"another network: this one has no tensor 'stage3.conv1.weight'"):
        table_of(small_cnn(), torch.randn(1, 1, 8, 8), {"stage3.conv1.weight": {0: {"a": 1}}}, ())
    with pytest.raises(PruningError, match=r"'head.bias' has shape \(10,\) and no dimension 1"):
        table_of(small_cnn(), torch.randn(1, 1, 8, 8), {"head.bias": {1: {"a": 1}}}, ())


def test_dense_cost_is_the_counters() -> None:
    inputs = torch.randn(1, 3, 32, 32)
    assert table_of(resnet20(), inputs, {}, ()).cost({}).macs == count_macs(resnet20(), inputs)


def test_many_candidates_at_once_cost_what_each_costs_alone() -> None:
    table = table_of(resnet20(), torch.randn(1, 3, 32, 32), resnet_shrink(), [])
    generator = np.random.default_rng(0)
    dense = np.array(list(table.widths.values()))
    widths = generator.integers(1, dense + 1, (50, len(dense)))
    costs = table.costs(widths)
    for number, row in enumerate(widths):
        alone = table.cost(dict(zip(table.widths, map(int, row), strict=True)))
        assert (costs.params[number], costs.macs[number], costs.tensor_bytes[number]) == alone
    with pytest.raises(PruningError, match="shape"):
        table.costs(widths[:, 1:])
    with pytest.raises(PruningError, match="dense width"):
        table.costs(widths + 64)
