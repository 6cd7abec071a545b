"""Weight masks against torch.nn.utils.prune."""

import pytest
import torch
from pruning_networks import TiedMLP, conv_flatten
from torch import nn
from torch.nn.utils import prune as torch_prune

from autoprune.errors import PruningError
from autoprune.pruning import WeightMasks


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return conv_flatten()


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.77, 0.999])
def test_layer_scope_is_torchs_l1_unstructured(model: nn.Module, ratio: float) -> None:
    masks = WeightMasks(model, {"0.weight": ratio, "7.weight": ratio / 2}).masks
    for name, amount in (("0", ratio), ("7", ratio / 2)):
        layer = model.get_submodule(name)
        torch_prune.l1_unstructured(layer, "weight", amount=amount)
        assert torch.equal(masks[f"{name}.weight"], layer.weight_mask.bool())


def test_global_scope_is_torchs_global_unstructured(model: nn.Module) -> None:
    names = ("0", "4", "7")
    masks = WeightMasks(model, {f"{name}.weight": 0.6 for name in names}, "global").masks
    layers = [(model.get_submodule(name), "weight") for name in names]
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=0.6)
    for name in names:
        assert torch.equal(masks[f"{name}.weight"], model.get_submodule(name).weight_mask.bool())


def test_global_scope_keeps_the_overall_share(model: nn.Module) -> None:
    masks = WeightMasks(model, {"0.weight": 0.9, "7.weight": 0.1}, "global")
    assert masks.n_zero == round(0.9 * 6 * 9 + 0.1 * 1280)


def test_exact_count_on_ties() -> None:
    layer = nn.Linear(6, 5)
    nn.init.ones_(layer.weight)
    masks = WeightMasks(layer, {"weight": 0.5})
    assert masks.n_zero == 15
    assert torch.equal(masks.masks["weight"].flatten(), torch.arange(30) >= 15)


def test_weights_stay_zero_while_training(model: nn.Module) -> None:
    masks = WeightMasks(model, {"7.weight": 0.8})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    masks.apply_()
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 1, 8, 8)).square().mean().backward()
        optimizer.step()
        masks.apply_()
    weight = model.get_parameter("7.weight")
    assert (weight == 0).sum() == round(0.8 * weight.numel())
    assert torch.equal(weight != 0, masks.masks["7.weight"])


def test_names_that_are_gone_are_ignored(model: nn.Module) -> None:
    assert WeightMasks(model, {"gone.weight": 0.5, "0.weight": 0.5}).masks.keys() == {"0.weight"}
    assert WeightMasks(model, {"gone.weight": 0.5}, "global").masks == {}


def test_tied_weight_goes_by_either_name() -> None:
    tied = TiedMLP()
    WeightMasks(tied, {"second.weight": 0.5}).apply_()
    assert (tied.first.weight == 0).sum() == 6 * 64


def test_ratio_of_one_is_refused(model: nn.Module) -> None:
    with pytest.raises(PruningError, match=r"weight_ratios\['0.weight'\] must be in \[0, 1\), got 1"):
        WeightMasks(model, {"0.weight": 1.0})
    with pytest.raises(PruningError, match="weight_scope must be"):
        WeightMasks(model, {"0.weight": 0.1}, "row")  # type: ignore[arg-type]


def test_saved_masks_are_taken_up(model: nn.Module) -> None:
    saved = WeightMasks(model, {"0.weight": 0.5, "7.weight": 0.9}).masks
    other = conv_flatten()
    WeightMasks.from_masks(other, saved).apply_()
    assert torch.equal(other.get_parameter("7.weight") != 0, saved["7.weight"])
    with pytest.raises(PruningError, match=r"mask of 0.weight must have its shape \(6, 1, 3, 3\), got \(3,\)"):
        WeightMasks.from_masks(other, {"0.weight": torch.ones(3, dtype=torch.bool)})
