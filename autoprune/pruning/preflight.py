"""The preflight: find what can be pruned, and prove each part and all together by forward and backward passes."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from autoprune.errors import PruningError
from autoprune.pruning.graph import ChannelGraph, output_dim, width_of
from autoprune.pruning.layer import block_importance, find_blocks, remove_blocks
from autoprune.pruning.neuron import Shrink, entries_lost, root_of
from autoprune.pruning.plan import Block, Group, LeftOut, PruningPlan
from autoprune.pruning.proof import Bench, batch_of_two, bench, randomised
from autoprune.pruning.provenance import Provenance, masked, named_tensors
from autoprune.tasks.task import Inputs

Item = TypeVar("Item")

_STATISTICS_OVER_CHANNELS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def make_plan(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    measure_loss: Callable[[nn.Module], float] | None = None,
    skip: Callable[[str], bool] = lambda name: False,
) -> PruningPlan:
    """Find what of a network can be pruned, and prove it.

    Every group that Torch-Pruning names loses about half of its channels on a copy with random weights. The copy must
    run forward and backward and give the output of the copy whose lost elements are zero instead; a group that fails
    is left out. What passes alone must pass together, with all blocks removed as well; otherwise a largest set that
    does is kept.

    Args:
        model: The dense network; it is not touched.
        example_inputs: A tensor, or a tuple or dict of tensors, whose first dimension is the batch.
        measure_loss: Loss of a network, to rank the blocks; ``None`` leaves them in module order.
        skip: Says by name which modules must keep their outputs, weights and blocks.

    Returns:
        A plan, without groups where nothing can be pruned; ``left_out`` says why.

    Raises:
        PruningError: If the network itself can't run on the inputs, or has no finite loss.
    """
    preflight = _Preflight(bench(randomised(model, seed=0), batch_of_two(example_inputs)), skip)
    groups, shrink = preflight.prove_groups()
    names = preflight.prove_blocks(groups, shrink)
    plan = PruningPlan(
        groups=tuple(groups),
        blocks=tuple(Block(name, 0.0) for name in names),
        weight_layers=_weight_layers(model, skip),
        left_out=tuple(preflight.left_out),
        shrink=shrink,
    )
    return plan if measure_loss is None else rank_blocks(plan, model, measure_loss)


def rank_blocks(plan: PruningPlan, model: nn.Module, measure_loss: Callable[[nn.Module], float]) -> PruningPlan:
    """Order a plan's blocks by importance, the rise of the loss when each alone is replaced by the identity.

    Args:
        model: The trained dense network; it is not touched.
        measure_loss: Loss of a network, on data of the caller's choice.

    Returns:
        The plan with its blocks least important first. A block without which the loss is not finite is left out.

    Raises:
        PruningError: If the network has no finite loss.
    """
    rises = block_importance(model, plan.block_names, measure_loss)
    needed = [name for name, rise in rises.items() if rise == float("inf")]
    blocks = [Block(name, rise) for name, rise in rises.items() if name not in needed]
    reason = "without this block the loss is not finite"
    return replace(
        plan,
        blocks=tuple(sorted(blocks, key=lambda block: block.importance)),
        left_out=(*plan.left_out, *(LeftOut(name, reason) for name in needed)),
    )


@dataclass(frozen=True)
class _Candidate:
    name: str
    width: int
    producers: tuple[str, ...]
    norms: tuple[str, ...]


class _Preflight:
    def __init__(self, dense: Bench, skip: Callable[[str], bool]) -> None:
        self.dense = dense
        self.skip = skip
        self.left_out: list[LeftOut] = []
        self._shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(dense.model)}
        self._modules = [name for name, _ in dense.model.named_modules()]
        self._generator = torch.Generator().manual_seed(0)

    def leave_out(self, module: str, reason: str) -> None:
        self.left_out.append(LeftOut(module, reason))

    def prove_groups(self) -> tuple[list[Group], Shrink]:
        """Prove each of Torch-Pruning's groups alone, then all of them together."""
        proved: list[Group] = []
        shrink: dict[str, dict[int, dict[str, int]]] = {}
        for candidate in self._candidates():
            try:
                losses = self._prove_alone(candidate)
            except PruningError as error:
                self.leave_out(candidate.name, _with_company(str(error), candidate))
                continue
            for name, by_dim in losses.items():
                for dim, n_entries in by_dim.items():
                    shrink.setdefault(name, {}).setdefault(dim, {})[candidate.name] = n_entries
            owners = {name.rpartition(".")[0] for name in losses}
            layers = tuple(name for name in self._modules if name in owners)
            proved.append(Group(candidate.name, candidate.width, layers))
        together, dropped = _largest_subset(proved, lambda groups: self._failure(groups, (), shrink))
        for group, reason in dropped:
            self.leave_out(group.name, f"passes alone, but not with the other groups: {reason}")
        names = {group.name for group in together}
        return together, _only(shrink, names)

    def prove_blocks(self, groups: Sequence[Group], shrink: Shrink) -> list[str]:
        """Find the residual blocks and prove each alone, then all of them together with all groups."""
        alone: list[str] = []
        for name in find_blocks(self.dense.model, self.dense.inputs):
            inside = [module for module in self._modules if module == name or module.startswith(name + ".")]
            reason = "left alone as asked" if any(map(self.skip, inside)) else self._failure((), (name,), shrink)
            if reason is None:
                alone.append(name)
            else:
                self.leave_out(name, f"block: {reason}")
        together, dropped = _largest_subset(alone, lambda blocks: self._failure(groups, blocks, shrink))
        for name, reason in dropped:
            self.leave_out(name, f"block: can be removed alone, but not with the other blocks and all groups: {reason}")
        return together

    def _candidates(self) -> Iterator[_Candidate]:
        """Torch-Pruning's groups, each rooted at its first producer in module order."""
        try:
            graph = ChannelGraph(copy.deepcopy(self.dense.model), self.dense.inputs)
        except PruningError as error:
            self.leave_out("", f"no groups of channels: {error}")
            return
        seen: set[str] = set()
        for name, module in graph.model.named_modules():
            if name in seen or not isinstance(module, _ConvNd | nn.Linear):
                continue
            if not graph.traces(name):
                self.leave_out(name, "takes no part in the forward pass as a module of its own")
                continue
            try:
                layers = graph.layers(name)
            except PruningError as error:
                self.leave_out(name, str(error))
                continue
            producers = [layer for layer in self._modules if layers.get(layer)]
            norms = [n for n in layers if isinstance(graph.model.get_submodule(n), _STATISTICS_OVER_CHANNELS)]
            seen.update(producers)
            yield _Candidate(name, width_of(module), tuple(producers), tuple(norms))

    def _prove_alone(self, candidate: _Candidate) -> dict[str, dict[int, int]]:
        """Entries that each dimension loses for each channel; raises PruningError with the reason if it can't."""
        if any(map(self.skip, candidate.producers)):
            raise PruningError("left alone as asked")
        if candidate.width < 2:
            raise PruningError("has one channel only")
        lost = self._about_half(candidate.width)
        pruned = copy.deepcopy(self.dense.model)
        provenance = ChannelGraph(pruned, self.dense.inputs).remove({candidate.name: lost})
        try:
            self.dense.prove(pruned, masked(self.dense.model, provenance))
        except PruningError as error:
            if candidate.norms and "masked" in str(error):
                norms = ", ".join(candidate.norms)
                raise PruningError(f"a norm takes its statistics over these channels ({norms}), so {error}") from error
            raise
        losses = entries_lost(self._shapes, _shapes(provenance))
        for name, by_dim in losses.items():
            for dim, n_entries in by_dim.items():
                if n_entries % len(lost):
                    raise PruningError(f"{name} loses {n_entries} entries of dimension {dim} for {len(lost)} channels")
                by_dim[dim] = n_entries // len(lost)
        own_dim = output_dim(self.dense.model.get_submodule(candidate.name))
        if losses.get(f"{candidate.name}.weight", {}).get(own_dim) != 1:
            raise PruningError("its channels leave in bundles, not one by one")
        return losses

    def _failure(self, groups: Sequence[Group], blocks: Sequence[str], shrink: Shrink) -> str | None:
        """Remove blocks and about half of each group, and say what goes wrong, if anything does."""
        reference = copy.deepcopy(self.dense.model)
        remove_blocks(reference, blocks)
        pruned = copy.deepcopy(reference)
        roots = {group.name: root_of(pruned, group, shrink) for group in groups}
        lost = {group.name: self._about_half(group.width) for group in groups if roots[group.name] is not None}
        try:
            if not lost:
                self.dense.prove(pruned, None)
                return None
            graph = ChannelGraph(pruned, self.dense.inputs)
            provenance = graph.remove({str(roots[name]): channels for name, channels in lost.items()})
            self.dense.prove(pruned, masked(reference, provenance))
        except PruningError as error:
            return str(error)
        for name, shape in _shapes(provenance).items():
            for dim, size in enumerate(self._shapes[name]):
                gone = shrink.get(name, {}).get(dim, {})
                predicted = size - sum(n * len(lost[group]) for group, n in gone.items() if group in lost)
                if shape[dim] != predicted:
                    return f"groups overlap: {name} has {shape[dim]} entries in dimension {dim}, not {predicted}"
        return None

    def _about_half(self, width: int) -> list[int]:
        """Random channels, so many that an odd number stays: a network that can't do with any number must fail."""
        kept = max(1, width // 2 + (width // 2 + 1) % 2) if width > 2 else 1
        return sorted(torch.randperm(width, generator=self._generator)[kept:].tolist())


def _shapes(provenance: Provenance) -> dict[str, tuple[int, ...]]:
    return {name: tuple(indices.shape) for name, indices in provenance.items()}


def _only(shrink: Shrink, groups: set[str]) -> Shrink:
    kept: dict[str, dict[int, dict[str, int]]] = {}
    for name, dims in shrink.items():
        for dim, losses in dims.items():
            for group, n_entries in losses.items():
                if group in groups:
                    kept.setdefault(name, {}).setdefault(dim, {})[group] = n_entries
    return kept


def _with_company(reason: str, candidate: _Candidate) -> str:
    others = [name for name in candidate.producers if name != candidate.name]
    return f"{reason}; its channels are also those of {', '.join(others)}" if others else reason


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


def _weight_layers(model: nn.Module, skip: Callable[[str], bool]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, _ConvNd | nn.Linear) and not skip(name):
            weight = dict(module.named_parameters(recurse=False)).get("weight")
            if weight is not None and id(weight) not in seen:
                seen.add(id(weight))
                sizes[f"{name}.weight"] = weight.numel()
    return sizes
