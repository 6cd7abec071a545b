"""Copies that take over tensors: what is shared, what is not, and what a proof may touch."""

import copy

import pytest
import torch
from masking import masked
from pruning_networks import ConvShortcutResNet, TiedMLP, settled
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.errors import PruningError
from autoprune.pruning.apply import prune
from autoprune.pruning.blocks.removed import is_removed
from autoprune.pruning.copies import named_tensors, shareable_tensors, weight_sharing_copy
from autoprune.pruning.kept_indices import KeptIndices, all_indices
from autoprune.pruning.plan import Block
from autoprune.pruning.planner import make_plan
from autoprune.pruning.proof import prove_pruned
from autoprune.trial import PruningConfig


def pointers(model: nn.Module) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for _, tensor in named_tensors(model)}


def test_named_tensors_are_taken_over_and_the_rest_is_copied() -> None:
    model = settled(TiedMLP())
    model.first.weight.requires_grad_(False)
    given = torch.ones_like(model.first.weight)
    copied = weight_sharing_copy(model, {"first.weight": given})
    assert copied.first.weight is copied.second.weight
    assert copied.first.weight.data_ptr() == given.data_ptr()
    assert not copied.first.weight.requires_grad
    assert pointers(model) & pointers(copied) == set()


def test_a_replica_lacks_a_removed_block() -> None:
    model = settled(ConvShortcutResNet())
    without = weight_sharing_copy(model, shareable_tensors(model), [Block("layer1.0", 0.0)])
    assert is_removed(without, "layer1.0")
    assert not is_removed(model, "layer1.0")
    x = torch.randn(2, 1, 8, 8)
    by_hand = copy.deepcopy(model)
    by_hand.layer1[0] = nn.Identity()
    assert torch.equal(without.eval()(x), by_hand.eval()(x))


@pytest.mark.parametrize("blocks", [(), ("layer1.0",)])
def test_a_pruned_network_shares_nothing_with_the_given_one(blocks: tuple[str, ...]) -> None:
    model = settled(ConvShortcutResNet())
    x = torch.randn(2, 1, 8, 8)
    plan = make_plan(model, x)
    half = {name: width // 2 for name, width in plan.group_widths.items()}
    result = prune(model, plan, PruningConfig(widths=half, removed_blocks=blocks), example_inputs=x)
    assert pointers(model) & pointers(result.model) == set()


class Counting(nn.Module):
    """Its forward pass changes an attribute, a buffer, and, through ``max_norm``, a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6, max_norm=0.1)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.n_calls = 0

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.n_calls += 1
        self.calls += 1
        return self.down(torch.relu(self.up(self.embed(tokens))))


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_a_forward_pass_that_writes_touches_neither_network(criterion: str) -> None:
    model, tokens = Counting(), torch.arange(8).view(2, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan = make_plan(model, tokens)

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs.square().mean()

    config = PruningConfig(widths={"up": 4}, criterion=criterion)
    result = prune(
        model, plan, config, example_inputs=tokens, calibration=lambda: [(tokens, torch.zeros(2))], loss=loss
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.n_calls == 0
    assert result.model.n_calls == 0
    assert result.model.calls == 0
    assert torch.equal(result.model.embed.weight, model.embed.weight)


class _Weights(TorchDispatchMode):
    """Counts the elements of new float tensors as large as a weight that operations outside of the network make."""

    def __init__(self, n_elements: int) -> None:
        super().__init__()
        self.at_least, self.made = n_elements, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.clone, torch.ops.aten._to_copy, torch.ops.aten.index_select):
            self.made += result.numel() if result.numel() >= self.at_least else 0
        return result


def test_a_large_networks_weights_are_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.pruning.proof._SMALL", 0)
    model = nn.Sequential(nn.Linear(200, 400), nn.ReLU(), nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 10))
    x = torch.randn(2, 200)
    plan = make_plan(model, x)
    widths = {"0": 200, "2": 150}
    with _Weights(3000 // 2) as weights:
        result = prune(model, plan, PruningConfig(widths=widths, criterion="random"), example_inputs=x)
    first = 200 * 200 + 400 * 150  # each dimension is narrowed in turn: rows, then columns
    n_pruned = sum(p.numel() for p in result.model.parameters() if p.dim() > 1)
    n_dense = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert weights.made <= n_dense + n_pruned + first


def wrongly_pruned() -> tuple[nn.Module, nn.Module, KeptIndices]:
    """A network, the same without another channel than its kept indices say, and these indices."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    pruned = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        pruned[0].weight.copy_(model[0].weight[1:])
        pruned[0].bias.copy_(model[0].bias[1:])
        pruned[2].weight.copy_(model[2].weight[:, 1:])
        pruned[2].bias.copy_(model[2].bias)
    kept = torch.arange(5)
    return (
        model,
        pruned,
        KeptIndices(all_indices(model).shapes, {"0.weight": {0: kept}, "0.bias": {0: kept}, "2.weight": {1: kept}}),
    )


@pytest.mark.parametrize("small", [0, 10**6])
def test_a_wrong_cut_is_seen_in_either_dtype(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.pruning.proof._SMALL", small)
    model, pruned, kept_indices = wrongly_pruned()
    with pytest.raises(PruningError, match="the output differs from the masked network's by"):
        prove_pruned(pruned, model, kept_indices, (), torch.randn(3, 4))


class Chaotic(nn.Sequential):
    """Makes the rounding of float32 as large as its output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(3e5 * super().forward(x))


def test_float64_decides_where_float32_is_too_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.pruning.proof._SMALL", 0)
    torch.manual_seed(0)
    model = Chaotic(nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 8))
    x = torch.randn(3, 16)
    result = prune(model, make_plan(model, x), PruningConfig(widths={"0": 301}), example_inputs=x)
    with torch.no_grad():
        apart = (result.model(x) - masked(model, result.kept_indices)(x)).abs().max()
    assert apart > 1e-2
