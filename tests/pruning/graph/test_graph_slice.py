"""Cutting whole networks: right, complete, and nothing else changed."""

import contextlib
import copy
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import autoprune
import benchmarks.coverage_networks as zoo
from autoprune.errors import PruningError
from autoprune.network.call import call_model
from autoprune.pruning.copies import named_tensors
from autoprune.pruning.graph import Analysis, analyse, at_widths, narrowed, prove_groups
from autoprune.pruning.graph.prove import half_of_channels
from autoprune.pruning.graph.serialize import from_plain, to_plain
from autoprune.pruning.graph.slice import remove_channels
from autoprune.pruning.kept_indices import masked_copy
from autoprune.pruning.planner import pruning_failure
from autoprune.pruning.proof import bench, tensors_in

NETWORKS: dict[str, Callable[[], Any]] = dict(zoo.hand_written())
with contextlib.suppress(ImportError):
    NETWORKS |= dict(zoo.transformers_models())


def build(name: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model, inputs = NETWORKS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
        for key, buffer in model.named_buffers():
            if key.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5)
    return model.eval(), inputs


def proved(model: nn.Module, inputs: Any) -> Analysis:
    """What of a network can be pruned, as its plan would have it."""
    stand = bench(model, inputs)
    return prove_groups(model, inputs, lambda analysis, lost: pruning_failure(stand, analysis, lost))


def output(model: nn.Module, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        return next(x for x in tensors_in(call_model(model, inputs)) if x.is_floating_point())


def product_macs(analysis: Analysis, n_removed: Mapping[str, int]) -> int:
    return sum(math.prod(run.size_after(n_removed) for run in product.runs) for product in analysis.products)


def counted_products(model: nn.Module, inputs: Any) -> int:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # The counter does not know the fused attention of CPUs.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call_model(model, inputs)
    torch.backends.mha.set_fastpath_enabled(fast_path)
    counts = counter.get_flop_counts()["Global"]
    return sum(n for operation, n in counts.items() if "bmm" in str(operation) or "attention" in str(operation)) // 2


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_network_equals_masked_one(name: str, ratio: float) -> None:
    model, inputs = build(name)
    analysis = proved(model, inputs)
    assert analysis.groups
    lost = {group.name: list(range(min(group.width - 1, round(group.width * ratio)))) for group in analysis.groups}
    assert pruning_failure(bench(model, inputs), analysis, lost) is None


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_after_a_cut_are_those_that_the_groups_foretell(name: str) -> None:
    model, inputs = build(name)
    analysis = proved(model, inputs)
    lost = half_of_channels(analysis.groups)
    pruned = copy.deepcopy(model)
    kept_indices = remove_channels(pruned, analysis, lost)
    expected = {key: list(tensor.shape) for key, tensor in named_tensors(model)}
    for group in analysis.groups:
        for (first, dim), indices in group.members.items():
            for key in (key for key, other in analysis.same.items() if other == first):
                expected[key][dim] -= indices.shape[1] * len(lost[group.name])
    for key, tensor in named_tensors(pruned):
        assert list(tensor.shape) == expected[key]
        assert min(tensor.shape, default=1) > 0
        dense = dict(named_tensors(model))[key]
        assert torch.equal(dense.detach().flatten()[kept_indices[key]], tensor)
    assert not torch.allclose(output(model, inputs), output(masked_copy(model, kept_indices), inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_cut_networks_can_be_cut_again(name: str) -> None:
    model, inputs = build(name)
    analysis = proved(model, inputs)
    lost = half_of_channels(analysis.groups)
    pruned = copy.deepcopy(model)
    remove_channels(pruned, analysis, lost)
    again = narrowed(analysis, lost)
    by_width = at_widths(analysis, {group.name: group.width for group in again.groups})
    fresh = {group.name: group for group in analyse(pruned, inputs, choices=analysis.choices).groups}
    for group, same in zip(again.groups, by_width.groups, strict=True):
        for place, indices in group.members.items():
            assert indices.tolist() == same.members[place].tolist()
            assert group.width == 1 or indices.tolist() == fresh[group.name].members[place].tolist()
    assert pruning_failure(bench(pruned, inputs), again, half_of_channels(again.groups)) is None


@pytest.mark.parametrize("name", NETWORKS)
def test_an_analysis_survives_json(name: str) -> None:
    model, inputs = build(name)
    analysis = analyse(model, inputs)
    record = json.dumps(to_plain(analysis))
    again = from_plain(json.loads(record))
    assert json.dumps(to_plain(again)) == record
    lost = half_of_channels(analysis.groups)
    first, second = copy.deepcopy(model), copy.deepcopy(model)
    remove_channels(first, analysis, lost)
    remove_channels(second, again, lost)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", [n for n in NETWORKS if "Conv" not in n and "DeBERTa" not in n])
def test_cost_of_products_of_activations_is_known_before_the_cut(name: str) -> None:
    """Against torch's counter, for the operations that have no weight.

    DeBERTa's products with projected positions are made of weights; its cost is tested from Python's plan.
    """
    model, inputs = build(name)
    analysis = proved(model, inputs)
    lost = half_of_channels(analysis.groups)
    pruned = copy.deepcopy(model)
    remove_channels(pruned, analysis, lost)
    foretold = product_macs(analysis, {group: len(channels) for group, channels in lost.items()})
    assert foretold == counted_products(pruned, inputs)
    assert product_macs(analysis, {}) == counted_products(model, inputs)
    assert product_macs(narrowed(analysis, lost), {}) == foretold


@pytest.mark.parametrize("name", ["UNet", "GatedLinearUnit", "FusedViT", "Shuffle"])
def test_members_are_what_cutting_the_channel_takes(name: str) -> None:
    model, inputs = build(name)
    squares = {key: tensor.detach().double().square() for key, tensor in model.named_parameters()}
    analysis = proved(model, inputs)
    for group in analysis.groups:
        sums = torch.zeros(group.width, dtype=torch.float64)
        for (key, dim), indices in group.members.items():
            if key in squares:
                by_index = squares[key].movedim(dim, 0).reshape(squares[key].shape[dim], -1).sum(1)
                sums += by_index[torch.from_numpy(indices)].sum(1)
        for channel in range(group.width):
            pruned = copy.deepcopy(model)
            remove_channels(pruned, analysis, {group.name: [channel]})
            left = sum(float(tensor.detach().double().square().sum()) for tensor in pruned.parameters())
            assert sums[channel] == pytest.approx(sum(float(x.sum()) for x in squares.values()) - left)


def test_nothing_but_shapes_changes() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model.bfloat16()
    calls: list[int] = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(4, 8, dtype=torch.bfloat16)
    analysis = analyse(model, x)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == [True, True, False, True]
    calls.clear()
    remove_channels(model, analysis, {"0": [0, 3]})
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False, True, True, True, True]
    assert (model[0].out_features, model[1].num_features, model[2].in_features) == (4, 4, 4)
    model(x)
    assert calls == [1]


def test_tied_weights_stay_tied() -> None:
    model, inputs = build("TiedLanguageModel")
    remove_channels(model, analyse(model, inputs), {"embed": [0, 5]})
    assert model.head.weight is model.embed.weight
    assert model.embed.embedding_dim == 22


def test_parts_that_run_only_in_training_are_cut_too() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.aux = nn.Linear(8, 6), nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> Any:
            x = self.a(x)
            return (self.b(x), self.aux(x)) if self.training else self.b(x)

    model = Auxiliary()
    remove_channels(model, analyse(model, torch.randn(2, 8)), {"a": [1, 2]})
    assert [tuple(x.shape) for x in model.train()(torch.randn(2, 8))] == [(2, 3), (2, 3)]


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ({"nought": [0]}, "unknown group 'nought'. Known: 0."),
        ({"0": [6]}, "group '0' has channels 0 to 5, can't remove 6."),
        ({"0": range(6)}, "group '0' must keep at least 1 of its 6 channels."),
    ],
)
def test_impossible_cuts_are_refused(removed: Any, message: str) -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 3))
    analysis = analyse(model, torch.randn(2, 8))
    with pytest.raises(PruningError, match=message.replace(".", r"\.").replace("(", r"\(")):
        remove_channels(model, analysis, removed)


def test_code_that_writes_a_size_down_is_found_out_by_running_it() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 12), nn.Linear(12, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(torch.relu(self.b(self.a(x).view(-1, 12))))

    analysis = proved(Fixed(), torch.randn(2, 8))
    assert [group.name for group in analysis.groups] == ["b"]
    assert any(item.module == "a" and "12" in item.reason for item in analysis.unprunable if item.operation == "proof")


def test_another_way_is_taken_where_the_code_does_not_allow_the_first() -> None:
    class Dealt(nn.Module):
        """Three rows are a constant of the code, so columns must leave; one block more fails for good."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            x = self.b(torch.relu(x.view(len(x), 3, x.shape[1] // 3).transpose(1, 2).flatten(1)))
            return self.d(torch.relu(self.c(torch.relu(x).view(-1, 12))))

    analysis = proved(Dealt(), torch.randn(2, 8))
    assert {group.name: group.width for group in analysis.groups} == {"a": 4, "c": 6}
    assert [item.module for item in analysis.unprunable if item.operation == "proof"] == ["b"]


class Padded(nn.Module):
    """A zero-padded shortcut; how much is padded stands in an attribute, or in the code alone."""

    def __init__(self, attribute: bool) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(n, m, 1) for n, m in ((3, 4), (4, 9), (9, 5), (5, 2)))
        self.new_channels = 5 if attribute else 1000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.new_channels if self.new_channels < 1000 else 5
        x = torch.relu(self.a(x))
        x = self.b(x) + nn.functional.pad(x, (0, 0, 0, 0, n // 2, n - n // 2))
        return self.d(torch.relu(self.c(torch.relu(x))))


def test_padding_that_an_attribute_tells_leaves_in_pairs() -> None:
    analysis = proved(Padded(attribute=True), torch.randn(2, 3, 4, 4))
    assert [(group.name, group.width) for group in analysis.groups] == [("a", 4), ("b", 2), ("c", 5)]
    assert analysis.group("b").members["b.weight", 0].shape == (2, 2)
    model = Padded(attribute=True)
    remove_channels(model, analysis, {"b": [1]})
    assert model.new_channels == 3
    assert [str(item) for item in analysis.unprunable if item.module == "b"] == [
        "b: 1 of 9 channels: its output is padded unequally (constant_pad_nd in the network)"
    ]


def test_padding_that_the_code_tells_stays() -> None:
    analysis = proved(Padded(attribute=False), torch.randn(2, 3, 4, 4))
    assert [(group.name, group.width) for group in analysis.groups] == [("a", 4), ("c", 5)]


class Unread(nn.Module):
    """Each block gives a residual and an output; nothing reads the last residual."""

    def __init__(self, *, subtracts: bool) -> None:
        super().__init__()
        self.first, self.subtracts = nn.Linear(8, 12), subtracts
        self.gates, self.residuals, self.outputs = (
            nn.ModuleList(nn.Linear(n, k) for _ in range(2)) for n, k in ((12, 10), (10, 12), (10, 3))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, total = F.relu(self.first(x)), torch.zeros(len(x), 3)
        for gate, residual, output in zip(self.gates, self.residuals, self.outputs, strict=True):
            gated = F.relu(gate(x))
            x = x - residual(gated) if self.subtracts else residual(gated) * x
            total = total + output(gated)
        return total


@pytest.mark.parametrize("subtracts", [True, False])
def test_what_is_computed_and_not_read_keeps_no_channels(subtracts: bool) -> None:
    torch.manual_seed(0)
    plan = autoprune.plan(Unread(subtracts=subtracts), torch.randn(2, 8))
    assert {group.name: group.width for group in plan.groups} == {"first": 12, "gates.0": 10, "gates.1": 10}
    pruned = plan.prune(0.5)  # which compares it with the masked network
    assert (pruned.residuals[1].in_features, pruned.residuals[1].out_features) == (5, 6)


def test_channels_leave_in_eights_where_a_kernel_asks_for_it() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 48), nn.Linear(48, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            if x.shape[1] % 8:
                raise RuntimeError("strides should be multiple of 16 bytes")
            return self.c(torch.relu(self.b(torch.relu(x))))

    analysis = proved(Picky(), torch.randn(2, 8))
    assert {group.name: group.multiple for group in analysis.groups} == {"a": 8, "b": 1}
    with pytest.raises(PruningError, match="group 'a' must keep a multiple of 8 channels, got 47"):
        remove_channels(Picky(), analysis, {"a": [0]})
