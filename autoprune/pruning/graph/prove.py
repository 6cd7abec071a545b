"""From what the graph allows to what the code allows: prune, run, compare, and drop what fails.

The trace shows sizes, not where the code takes them from. Pruning can therefore fail for a number that is written in a
forward pass (``C // num_heads``); only running it tells.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from autoprune.pruning.graph.analysis import Analysis, analyse
from autoprune.pruning.graph.dependency_graph import CONVOLUTION, SLICES, ChoiceKey
from autoprune.pruning.graph.grouping import DependencyGroup

_EIGHT = 8

Prove = Callable[[Analysis, Mapping[str, Sequence[int]]], str | None]
"""(analysis, channels to remove) -> what goes wrong, if anything does."""


def prove_groups(
    model: nn.Module,
    example_inputs: Any,
    prove: Prove,
    *,
    allow_norm: bool = False,
) -> Analysis:
    """Analyse a network and keep what is proved by running it.

    Groups that fail are tried with their dimensions split in other ways; those that still fail are left out, with what
    went wrong as the reason.

    Args:
        prove: Cuts channels from a copy of the network, runs it, and compares it with the masked one.
    """
    analysis = analyse(model, example_inputs, allow_norm=allow_norm)
    if prove(analysis, half_of_channels(analysis.groups)) is None:
        return analysis
    # The last of several alike blocks may compute what nothing reads, such as a residual; its shapes must fit.
    whole = analyse(model, example_inputs, allow_norm=allow_norm, all_operations=True)
    layers = [[group.layers for group in found.groups] for found in (analysis, whole)]
    if layers[0] != layers[1] and prove(whole, half_of_channels(whole.groups)) is None:
        return whole
    reasons: dict[str, str] = {}
    for groups in _by_kind(model, analysis):
        failed = _failures(analysis, groups, prove)
        if not failed:
            continue
        other = _without_coincidences(analysis, failed.keys(), prove)
        if other is None:
            other = _another_way(
                model, example_inputs, analysis, [g for g in groups if g.name in failed], prove, allow_norm
            )
        if other is None:
            other = _in_multiples(analysis, failed.keys(), prove)
        if other is None:
            reasons |= failed
        else:
            analysis = other
    remaining = analysis.without_groups(reasons)
    if prove(remaining, half_of_channels(remaining.groups)) is None:
        return remaining
    return _largest(remaining, prove)


def half_of_channels(groups: Sequence[DependencyGroup]) -> dict[str, list[int]]:
    """Draw random channels of each group so that an odd number stays: what can't do with any number must fail."""
    generator = torch.Generator().manual_seed(0)
    lost = {}
    n_alike: Counter[int] = Counter()
    for group in groups:
        n = group.width // group.multiple
        half = max(1, n // 2 + (n // 2 + 1) % 2) if n > 2 else 1
        # Groups of one width keep different numbers, so that a size of one is not taken for that of another.
        kept = [number for number in (half, half - 2, half + 2) if 0 < number < n] or [1]
        n_kept = group.multiple * kept[n_alike[n] % len(kept)]
        n_alike[n] += 1
        lost[group.name] = sorted(torch.randperm(group.width, generator=generator)[n_kept:].tolist())
    return lost


def _by_kind(model: nn.Module, analysis: Analysis) -> list[list[DependencyGroup]]:
    """Sort groups by their layers and the types of their blocks; those of one kind are likely to fail alike."""
    types = {name: type(module).__name__ for name, module in model.named_modules()}
    kinds: dict[tuple[str, ...], list[DependencyGroup]] = {}
    for group in analysis.groups:
        parents = {types.get(layer.rpartition(".")[0], "") for layer in group.layers}
        leaves = {f"{layer.rpartition('.')[2]}:{types.get(layer, '')}" for layer in group.layers}
        kinds.setdefault((*sorted(parents), *sorted(leaves)), []).append(group)
    return list(kinds.values())


def _failures(analysis: Analysis, groups: Sequence[DependencyGroup], prove: Prove) -> dict[str, str]:
    """Find the groups of one kind that fail: group name -> what goes wrong."""
    groups = [group for group in groups if any(group.name == other.name for other in analysis.groups)]
    together = prove(analysis, half_of_channels(groups))
    if together is None:
        return {}
    first = prove(analysis, half_of_channels(groups[:1]))
    if first is not None:
        return {group.name: first for group in groups}
    reasons = {group.name: prove(analysis, half_of_channels([group])) for group in groups[1:]}
    found = {name: reason for name, reason in reasons.items() if reason is not None}
    return found or {group.name: together for group in groups}


def _without_coincidences(analysis: Analysis, failed: Collection[str], prove: Prove) -> Analysis | None:
    """Leave attributes as they are, one or all, that may have a group's size by chance."""
    held = [
        (group, module, attribute)
        for size in analysis.sizes
        for group, _ in size.channels
        if group in failed
        for module, attribute in size.holders
    ]
    groups = [group for group in analysis.groups if group.name in failed]
    attributes = list(dict.fromkeys(attribute for _, _, attribute in held))
    tries = [{attribute} for attribute in attributes] + ([set(attributes)] if len(attributes) > 1 else [])
    for chosen in tries:
        other = analysis.without_holders({item for item in held if item[2] in chosen})
        if prove(other, half_of_channels(groups)) is None:
            return other
    return None


def _another_way(
    model: nn.Module,
    inputs: Any,
    analysis: Analysis,
    failed: Sequence[DependencyGroup],
    prove: Prove,
    allow_norm: bool,
) -> Analysis | None:
    """Split dimensions in other ways where groups fail, until the groups of the same weights pass.

    One dimension is split in another way at a time, then all alike: queries and keys must agree on theirs. Values that
    can't be split so are then left out.
    """
    types = {name: type(module).__name__ for name, module in model.named_modules()}
    layers = {layer for group in failed for layer in group.layers}
    tensor_dims = {tensor_dim for group in failed for tensor_dim in group.members}
    around = {".".join(layer.split(".")[:n]) for layer in layers for n in range(layer.count(".") + 2)}
    classes = {types.get(name, "") for name in around}
    n_others = len(analysis.groups) - len(failed)
    near = {
        key: taken
        for key, taken in analysis.choices.items()
        if key[0].removeprefix(SLICES) in classes or key[0].removeprefix(CONVOLUTION) in layers
    }

    def split(choices: Mapping[ChoiceKey, int]) -> tuple[Analysis, list[DependencyGroup]]:
        other = analyse(
            model,
            inputs,
            allow_norm=allow_norm,
            choices={**analysis.choices, **choices},
            coincidences=analysis.coincidences,
        )
        return other, [group for group in other.groups if tensor_dims & group.members.keys()]

    for key, taken in near.items():
        for option in range(key[2]):
            if option == taken:
                continue
            other, candidates = split({key: option})
            if candidates and len(other.groups) > n_others and prove(other, half_of_channels(candidates)) is None:
                return other
    for owner, n_options in {(key[0], key[2]): None for key in near if not key[0].startswith(SLICES)}:
        alike = [key for key in near if (key[0], key[2]) == (owner, n_options)]
        for option in range(n_options):
            if len(alike) < 2 or all(near[other] == option for other in alike):
                continue
            other, candidates = split(dict.fromkeys(alike, option))
            reasons = {group.name: prove(other, half_of_channels([group])) for group in candidates}
            left_out = {name: reason for name, reason in reasons.items() if reason is not None}
            passing = [group for group in candidates if group.name not in left_out]
            if passing and prove(other, half_of_channels(passing)) is None:
                return other.without_groups(left_out)
    return None


def _in_multiples(analysis: Analysis, failed: Collection[str], prove: Prove) -> Analysis | None:
    """Keep channels in eights: what kernels ask for that read 16 bytes at a time, of two bytes each."""
    groups = [
        replace(group, multiple=_EIGHT)
        if group.name in failed and group.width > _EIGHT and group.width % _EIGHT == 0
        else group
        for group in analysis.groups
    ]
    changed = [group for group in groups if group.multiple > 1 and group.name in failed]
    other = replace(analysis, groups=tuple(groups))
    return other if len(changed) == len(failed) and prove(other, half_of_channels(changed)) is None else None


def _largest(analysis: Analysis, prove: Prove) -> Analysis:
    """Keep the groups that pass when added one by one."""
    kept: list[DependencyGroup] = []
    reasons: dict[str, str] = {}
    for group in analysis.groups:
        reason = prove(analysis, half_of_channels([*kept, group]))
        if reason is None:
            kept.append(group)
        else:
            reasons[group.name] = f"passes alone, but not with the other groups: {reason}"
    return analysis.without_groups(reasons)
