"""The preflight: find what can be pruned, and prove each part and all together by forward and backward passes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from autoprune.errors import PruningError
from autoprune.network.call import BatchDim, Inputs
from autoprune.network.frozen import is_frozen
from autoprune.pruning.blocks.find import find_blocks
from autoprune.pruning.blocks.importance import angular_distances, loss_rises
from autoprune.pruning.copies import named_tensors, shareable_tensors, weight_sharing_copy
from autoprune.pruning.graph import Analysis, half_of_channels, no_analysis, prove_groups, to_plain
from autoprune.pruning.graph.slice import remove_channels
from autoprune.pruning.kept_indices import masked_copy
from autoprune.pruning.plan import Block, Group, PruningPlan, Unprunable
from autoprune.pruning.proof import Bench, batch_of_two, bench, in_dtype, randomised, shortened

Item = TypeVar("Item")


def make_plan(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    measure_loss: Callable[[nn.Module], float] | None = None,
    skip: Callable[[str], bool] = lambda name: False,
    hidden_sizes: bool = False,
    batch_dim: BatchDim = 0,
) -> PruningPlan:
    """Find what of a network can be pruned, and prove it.

    The groups are those that the network's operations allow (``autoprune.pruning.graph``). On a copy with random
    weights each loses about half of its channels; the copy must run forward and backward and give the output of the
    copy whose lost elements are zero instead. A group that fails is left out. What passes alone must pass together,
    with all blocks removed as well; otherwise a largest set that does is kept.

    Args:
        model: The dense network; it is not touched.
        example_inputs: A tensor, or a tuple or dict of tensors, whose first dimension is the batch.
        measure_loss: Loss of a network, to rank the blocks; ``None`` leaves them in module order.
        skip: Says by name which modules must keep their outputs, weights and blocks.
        hidden_sizes: Make groups of channels too over which a layer, group or RMS norm takes its statistics. Without
            them the network is not the masked one, so that they are proved to run and to train, and no values are
            compared.
        batch_dim: ``None`` if the first dimension of the inputs is no batch, so that a single row stays one.

    Returns:
        A plan, without groups where nothing can be pruned; ``left_out`` says why.

    Raises:
        PruningError: If the network itself can't be changed, can't run on the inputs, or has no finite loss.
    """
    check_given(model, example_inputs)
    drawn = randomised(model, seed=0)
    inputs = batch_of_two(example_inputs) if batch_dim == 0 else example_inputs
    preflight = _Preflight(drawn, bench(drawn, inputs), skip)
    analysis = preflight.prove_groups(hidden_sizes)
    blocks = preflight.prove_blocks(analysis)
    weights, frozen = _weight_layers(model, skip)
    for name in frozen:
        preflight.add_unprunable(name, "single weights: frozen (requires_grad is False)")
    plan = PruningPlan(
        groups=tuple(Group(g.name, g.width, g.layers, g.multiple, g.exact) for g in analysis.groups),
        blocks=tuple(blocks),
        weight_layers=weights,
        left_out=tuple(preflight.unprunable),
        graph=to_plain(analysis),
    )
    return plan if measure_loss is None else rank_blocks(plan, model, measure_loss)


def rank_blocks(plan: PruningPlan, model: nn.Module, measure_loss: Callable[[nn.Module], float]) -> PruningPlan:
    """Order a plan's blocks by importance, the rise of the loss when each alone is removed.

    Args:
        model: The trained dense network; it is not touched.
        measure_loss: Loss of a network, on data of the caller's choice.

    Returns:
        The plan with its blocks least important first. A block without which the loss is not finite is left out.

    Raises:
        PruningError: If the network has no finite loss.
    """
    rises = loss_rises(model, plan.blocks, measure_loss)
    needed = [name for name, rise in rises.items() if rise == float("inf")]
    reason = "without this block the loss is not finite"
    return replace(
        plan,
        blocks=_ordered([block for block in plan.blocks if block.name not in needed], rises),
        left_out=(*plan.left_out, *(Unprunable(name, reason) for name in needed)),
    )


def rank_blocks_by_angle(plan: PruningPlan, model: nn.Module, batches: Iterable[Inputs]) -> PruningPlan:
    """Order a plan's blocks by the angle by which each turns its input (:func:`angular_distances`).

    Args:
        model: The trained dense network; it is not touched.
        batches: Inputs of the network.

    Raises:
        PruningError: If there is no batch, or a distance is not finite.
    """
    return replace(plan, blocks=_ordered(plan.blocks, angular_distances(model, plan.blocks, batches)))


def _ordered(blocks: Sequence[Block], importance: Mapping[str, float]) -> tuple[Block, ...]:
    ranked = (replace(block, importance=importance[block.name]) for block in blocks)
    return tuple(sorted(ranked, key=lambda block: block.importance))


class _Preflight:
    def __init__(self, drawn: nn.Module, dense: Bench, skip: Callable[[str], bool]) -> None:
        self.dense = dense
        # What is looked at and not compared needs no float64.
        is_single = all(tensor.dtype is torch.float32 for tensor in drawn.parameters())
        self.probed = in_dtype(drawn, dense.inputs, torch.float32) if is_single else (dense.model, dense.inputs)
        self.skip = skip
        self.unprunable: list[Unprunable] = []
        self._modules = [name for name, _ in dense.model.named_modules()]

    def add_unprunable(self, module: str, reason: str, option: str = "") -> None:
        self.unprunable.append(Unprunable(module, reason, option))

    def prove_groups(self, hidden_sizes: bool) -> Analysis:
        """Find the groups and prove them, alone where they don't pass together."""
        try:
            analysis = prove_groups(
                *self.probed, lambda found, lost: pruning_failure(self.dense, found, lost), allow_norm=hidden_sizes
            )
        except Exception as error:
            self.add_unprunable("", f"no groups of channels: the network can't be followed ({shortened(error)})")
            return no_analysis(self.dense.model)
        asked = {group.name: "left alone as asked" for group in analysis.groups if any(map(self.skip, group.makers))}
        analysis = analysis.without_groups(asked)
        for channels in analysis.unprunable:
            self.add_unprunable(channels.module, channels.description, "hidden_sizes" if channels.by_norms else "")
        return analysis

    def prove_blocks(self, analysis: Analysis) -> list[Block]:
        """Find the residual blocks and prove them together with all groups; alone where they don't pass so."""
        lost = half_of_channels(analysis.groups)
        found: list[Block] = []
        blocks, unprunable = find_blocks(*self.probed)
        self.unprunable += unprunable
        for block in blocks:
            inside = [name for name in self._modules if name == block.name or name.startswith(block.name + ".")]
            if any(map(self.skip, inside)):
                self.add_unprunable(block.name, "block: left alone as asked")
            else:
                found.append(block)
        if not found or pruning_failure(self.dense, analysis, lost, found) is None:
            return found
        alone: list[Block] = []
        for block in found:
            reason = pruning_failure(self.dense, analysis, {}, (block,))
            if reason is None:
                alone.append(block)
            else:
                self.add_unprunable(block.name, f"block: {reason}")
        together, dropped = _largest_subset(alone, lambda blocks: pruning_failure(self.dense, analysis, lost, blocks))
        for block, reason in dropped:
            self.add_unprunable(
                block.name, f"block: can be removed alone, but not with the other blocks and all groups: {reason}"
            )
        return together


def pruning_failure(
    dense: Bench, analysis: Analysis, lost: Mapping[str, Sequence[int]], blocks: Sequence[Block] = ()
) -> str | None:
    """Remove blocks and channels from a copy of a network, and say what goes wrong, if anything does.

    Args:
        lost: Group name -> channels to remove. Where some are of a group that is not exact, its values are compared
            without those alone; without any, only its shapes are.
    """
    exact = {group.name: lost[group.name] for group in analysis.groups if group.exact and lost.get(group.name)}
    n_lost = sum(map(bool, lost.values()))
    if exact and len(exact) < n_lost:
        reason = pruning_failure(dense, analysis, exact, blocks)
        if reason is not None:
            return reason
    pruned = weight_sharing_copy(dense.model, shareable_tensors(dense.model), blocks)
    try:
        if not lost:
            dense.prove(pruned, None)
            return None
        kept_indices = remove_channels(pruned, analysis, lost)
        reference = masked_copy(dense.model, kept_indices, blocks) if len(exact) == n_lost else None
        dense.prove(pruned, reference)
    except PruningError as error:
        return str(error)
    except Exception as error:
        return f"it can't be cut ({shortened(error)})"
    return None


def _largest_subset(
    items: Sequence[Item], failure: Callable[[Sequence[Item]], str | None]
) -> tuple[list[Item], list[tuple[Item, str]]]:
    """Keep all items if they pass together, else those that pass when added one by one; say why the others don't."""
    if not items or failure(items) is None:
        return list(items), []
    kept: list[Item] = []
    dropped: list[tuple[Item, str]] = []
    for item in items:
        reason = failure([*kept, item])
        if reason is None:
            kept.append(item)
        else:
            dropped.append((item, reason))
    return kept, dropped


def _weight_layers(model: nn.Module, skip: Callable[[str], bool]) -> tuple[dict[str, int], list[str]]:
    """Find the weights of linear layers and convolutions: their sizes by name, and the layers whose own is frozen."""
    sizes: dict[str, int] = {}
    frozen: list[str] = []
    seen: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, _ConvNd | nn.Linear) and not skip(name):
            weight = dict(module.named_parameters(recurse=False)).get("weight")
            if weight is not None and id(weight) not in seen:
                seen.add(id(weight))
                if is_frozen(weight):
                    frozen.append(name)
                else:
                    sizes[f"{name}.weight"] = weight.numel()
    return sizes, frozen


def check_given(model: Any, inputs: Inputs) -> None:
    """Refuse what no pass could prove anything of.

    Raises:
        PruningError: If the model is no module, or one whose code or tensors are out of reach, or there is no example.
    """
    if not isinstance(model, nn.Module):
        got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise PruningError(f"the model must be a torch.nn.Module, got {got}. Pass the network itself.")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise PruningError("a TorchScript model can't be changed. Pass the module that it was made of.")
    if isinstance(model, torch.fx.GraphModule) and "train" in vars(model):  # torch.export puts one there that raises
        raise PruningError("an exported program can't be changed. Pass the module that it was made of.")
    for name, tensor in named_tensors(model):
        if is_lazy(tensor):
            raise PruningError(f"{name} has no shape yet. Run the lazy model on an example once, then plan it.")
        if tensor.is_meta:
            raise PruningError(f"{name} is on the meta device, which holds no values. Load the weights first.")
        if tensor.is_inference():
            raise PruningError(f"{name} was made in inference mode. Build the model outside of it.")
    for leaf in tree_leaves(inputs):
        if isinstance(leaf, torch.Tensor) and leaf.dim() and not len(leaf):
            raise PruningError(f"example inputs must hold at least one example, got shape {tuple(leaf.shape)}.")
