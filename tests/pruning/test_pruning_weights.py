"""Weight masks against torch's own pruning, brute force, and the compressed format of 2:4 matrices."""

from itertools import combinations
from pathlib import Path

import pytest
import torch
from pruning_networks import TiedMLP, conv_flatten
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import prune as torch_prune
from torch.sparse import _semi_structured_conversions as semi_structured

from autoprune.config import CallableRef
from autoprune.errors import PruningError
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.saved_model import load_model, save_model
from autoprune.pruning.planner import make_plan
from autoprune.pruning.weights import WeightMasks
from autoprune.trial import WeightScope


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
    n_zero = sum(int((~mask).sum()) for mask in masks.masks.values())
    assert n_zero == round(0.9 * 6 * 9 + 0.1 * 1280)


def test_exact_count_on_ties() -> None:
    layer = nn.Linear(6, 5)
    nn.init.ones_(layer.weight)
    masks = WeightMasks(layer, {"weight": 0.5})
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
    with pytest.raises(PruningError, match="weight_pattern must be one of none, 2:4, got '4:2'"):
        WeightMasks(model, {"0.weight": 0.1}, "layer", "4:2")  # type: ignore[arg-type]
    with pytest.raises(PruningError, match=r"weight_ratios\['0.weight'\] must be at most 0.5 with .*, got 0.6"):
        WeightMasks(model, {"0.weight": 0.6}, "layer", "2:4")
    with pytest.raises(PruningError, match="weight_scope must be 'layer' with weight_pattern '2:4', got 'lamp'"):
        WeightMasks(model, {"0.weight": 0.5}, "lamp", "2:4")


def test_saved_masks_are_taken_up(model: nn.Module) -> None:
    saved = WeightMasks(model, {"0.weight": 0.5, "7.weight": 0.9}).masks
    other = conv_flatten()
    WeightMasks.from_masks(other, saved).apply_()
    assert torch.equal(other.get_parameter("7.weight") != 0, saved["7.weight"])
    with pytest.raises(PruningError, match=r"mask of 0.weight must have its shape \(6, 1, 3, 3\), got \(3,\)"):
        WeightMasks.from_masks(other, {"0.weight": torch.ones(3, dtype=torch.bool)})


def test_the_file_shrinks_with_the_ratio_and_holds_no_masks(model: nn.Module, tmp_path: Path) -> None:
    names = ("0.weight", "4.weight", "7.weight")
    sizes = []
    for ratio in (0.0, 0.2, 0.5, 0.8, 0.95):
        WeightMasks(model, dict.fromkeys(names, ratio)).apply_()
        architecture = architecture_diff(conv_flatten(), model, CallableRef(callable="pruning_networks:conv_flatten"))
        sizes.append(save_model(tmp_path, model, architecture))
        loaded = load_model(tmp_path, conv_flatten).state_dict()
        assert loaded.keys() == conv_flatten().state_dict().keys()
        torch.testing.assert_close(loaded, model.state_dict(), rtol=0, atol=0)
    n_weights = sum(model.get_parameter(name).numel() for name in names)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] > 0.9 * 4 * n_weights - n_weights / 8 - 3 * 200  # less the bit masks and their headers


# LAMP.


def lamp_scores(weight: torch.Tensor) -> torch.Tensor:
    """Lee et al. 2021, eq. 2, as it stands there: over all weights that are no smaller."""
    squares = weight.detach().double().flatten().square()
    return torch.stack([square / squares[squares >= square].sum() for square in squares]).view(weight.shape)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.9, 0.995])
def test_lamp_scope_is_global_by_the_scores_of_the_paper(model: nn.Module, ratio: float) -> None:
    names = ("0", "4", "7")
    model.get_submodule("4").weight.data *= 1e3  # the scale of a layer is no matter
    masks = WeightMasks(model, {f"{name}.weight": ratio for name in names}, "lamp").masks
    layers = [(model.get_submodule(name), "weight") for name in names]
    scores = {(layer, "weight"): lamp_scores(layer.weight) for layer, _ in layers}
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, scores, amount=ratio)
    for name in names:
        assert torch.equal(masks[f"{name}.weight"], model.get_submodule(name).weight_mask.bool())
        assert masks[f"{name}.weight"].any()  # the largest weight of each layer has the score 1


def test_lamp_of_equal_weights_and_of_zeros() -> None:
    layers = nn.ModuleList([nn.Linear(4, 1, bias=False), nn.Linear(2, 2, bias=False)])
    nn.init.ones_(layers[0].weight)  # scores 1/4, 1/3, 1/2, 1: they leave one by one
    nn.init.zeros_(layers[1].weight)  # scores 0
    ratios = {"0.weight": 0.75, "1.weight": 0.75}
    masks = WeightMasks(layers, ratios, "lamp").masks
    assert masks["0.weight"].tolist() == [[False, False, True, True]]
    assert not masks["1.weight"].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_lamp_within_one_layer_is_by_magnitude_in_any_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 16).to(dtype)
    layer.weight.data *= 1e-4
    masks = [WeightMasks(layer, {"weight": 0.4}, scope).masks["weight"] for scope in ("lamp", "layer")]
    assert torch.equal(*masks)


# 2:4.


def test_pattern_of_a_linear_layer_is_torchs_block_sparsifier() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 12))
    masks = WeightMasks(model, {"0.weight": 0.5}, pattern="2:4").masks
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    assert torch.equal(masks["0.weight"], model[0].parametrizations.weight[0].mask)


def test_pattern_fits_the_compressed_format_without_loss() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 32).half()
    WeightMasks(layer, {"weight": 0.5}, pattern="2:4").apply_()
    compressed, positions = semi_structured.sparse_semi_structured_from_dense_cutlass(layer.weight.detach())
    assert compressed.shape == (32, 32)
    assert torch.equal(semi_structured.sparse_semi_structured_to_dense_cutlass(compressed, positions), layer.weight)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv1d(8, 3, 5), nn.Conv2d(8, 6, (2, 3)), nn.Conv3d(4, 2, 2), nn.Conv2d(16, 6, 3, groups=2)],
    ids=lambda layer: f"{type(layer).__name__} of {layer.groups} group",
)
def test_pattern_of_a_convolution_is_along_its_input_channels(layer: nn.Conv2d) -> None:
    mask = WeightMasks(layer, {"weight": 0.5}, pattern="2:4").masks["weight"].flatten(2)
    weight = layer.weight.detach().abs().flatten(2)
    for out in range(weight.shape[0]):
        for place in range(weight.shape[2]):
            for first in range(0, weight.shape[1], 4):
                group = weight[out, first : first + 4, place].tolist()
                best = max(combinations(range(4), 2), key=lambda pair: sum(group[index] for index in pair))
                assert mask[out, first : first + 4, place].nonzero().flatten().tolist() == list(best)


def test_pattern_of_equal_weights_keeps_two_of_four() -> None:
    layer = nn.Linear(8, 3)
    nn.init.zeros_(layer.weight)
    mask = WeightMasks(layer, {"weight": 0.5}, pattern="2:4").masks["weight"]
    assert mask.tolist() == [[False, False, True, True] * 2] * 3


def test_what_the_pattern_does_not_fit_is_left_dense() -> None:
    layers = nn.ModuleDict(
        {
            "fits": nn.Linear(8, 3),
            "odd": nn.Linear(6, 4),
            "rgb": nn.Conv2d(3, 8, 4),
            "depthwise": nn.Conv2d(8, 8, 3, groups=8),
            "transposed": nn.ConvTranspose2d(8, 8, 2),
            "table": nn.Embedding(8, 8),
        }
    )
    masks = WeightMasks(layers, {f"{name}.weight": 0.5 for name in layers} | {"fits.bias": 0.5}, pattern="2:4")
    assert masks.masks.keys() == {"fits.weight"}
    masks.apply_()
    assert all(layer.weight.all() for name, layer in layers.items() if name != "fits")


def test_a_pattern_grows_and_cuts_nothing_outside_itself() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3)
    whole = WeightMasks(layer, {"weight": 0.5}, pattern="2:4").masks["weight"]
    before = torch.ones_like(whole)
    for ratio in (0.0, 0.2, 0.4, 0.5):
        part = WeightMasks(layer, {"weight": ratio}, pattern="2:4").masks["weight"]
        assert int((~part).sum()) == round(ratio * 576)
        assert not (part & ~before).any()
        assert not (whole & ~part).any()
        weight = layer.weight.detach().abs()
        if 0 < ratio < 0.5:
            assert weight[~part].max() <= weight[part & ~whole].min()
        before = part
    assert torch.equal(before, whole)


@pytest.mark.parametrize("scope", ["layer", "global", "lamp"])
def test_frozen_parameters_keep_their_weights(model: nn.Module, scope: WeightScope) -> None:
    model[4].weight.requires_grad_(False)
    before = model[4].weight.clone()
    masks = WeightMasks(model, {f"{name}.weight": 0.6 for name in ("0", "4", "7")}, scope)
    masks.apply_()
    assert set(masks.masks) == {"0.weight", "7.weight"}
    assert torch.equal(model[4].weight, before)
    n_lost = sum(int((~mask).sum()) for mask in masks.masks.values())
    assert n_lost == pytest.approx(0.6 * (model[0].weight.numel() + model[7].weight.numel()), abs=1)


def test_the_plan_offers_no_frozen_weights(model: nn.Module) -> None:
    model[4].weight.requires_grad_(False)
    plan = make_plan(model, torch.randn(2, 1, 8, 8))
    assert set(plan.weight_layers) == {"0.weight", "7.weight"}
    assert "single weights: frozen (requires_grad is False)" in {
        item.reason for item in plan.left_out if item.module == "4"
    }
