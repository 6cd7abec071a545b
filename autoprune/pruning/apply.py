"""Prune a network, dense or pruned before under the same plan, as a trial asks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Integral

from torch import nn

from autoprune.errors import PruningError, did_you_mean
from autoprune.network.call import Inputs
from autoprune.pruning.blocks.removed import is_removed
from autoprune.pruning.channels.criteria import check_criterion, needs_data
from autoprune.pruning.channels.importance import Calibration, channel_scores, inputs_on
from autoprune.pruning.channels.reconstruction import reconstruct
from autoprune.pruning.channels.widths import current_widths, least_important
from autoprune.pruning.copies import shareable_tensors, weight_sharing_copy
from autoprune.pruning.graph import DependencyGroup, TensorDim, at_widths, from_plain
from autoprune.pruning.graph.slice import remove_channels
from autoprune.pruning.kept_indices import KeptIndices, all_indices
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.proof import prove_pruned
from autoprune.tasks.task import Loss
from autoprune.trial import PruningConfig


@dataclass(frozen=True)
class Pruned:
    """A pruned network and what it lost.

    Attributes:
        widths: Group name -> channels that it has, for every group of the plan; 0 where removed blocks took them all.
        removed_blocks: Blocks of the plan that it lacks, in the plan's order.
        kept_indices: Where its elements stood in the network that was given.
    """

    model: nn.Module
    widths: dict[str, int]
    removed_blocks: tuple[str, ...]
    kept_indices: KeptIndices


def prune(
    model: nn.Module,
    plan: PruningPlan,
    config: PruningConfig,
    *,
    example_inputs: Inputs,
    calibration: Calibration | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> Pruned:
    """Remove the blocks, then the least important channels of each group; single weights are ``WeightMasks``' part.

    Importance is that of the given network without the blocks. The result's output on the example inputs must equal
    that of the masked network before it is handed back; where channels of a group that is not exact leave, it must
    have its shape and be finite; that such a network trains is what the plan has proved. With ``config.reconstruct``
    the layers behind the groups are fitted after that.

    Args:
        model: The dense network, or one pruned under the same plan; it is not touched.
        config: Absolute widths to keep, and blocks to remove. Blocks that the network already lacks stay removed;
            widths of groups inside a removed block are ignored.
        calibration: Batches for what needs data (``looks_at_data``).
        loss: Loss for the criteria that look at gradients.
        seed: Of the ``random`` criterion, and of the places at which layers' inputs are looked at.

    Raises:
        PruningError: If a name is not in the plan, a width is below 1 or above what the network has, the criterion
            or the reconstruction lacks its data, or the pruned network does not do what the masked one does.
    """
    check_criterion(config.criterion)
    if config.reconstruct and calibration is None:
        raise PruningError("reconstruction needs calibration batches, got none. Pass them, or turn it off.")
    _check_names("group", config.widths, plan.group_widths)
    _check_names("block", config.removed_blocks, plan.block_names)
    present_blocks = [block for block in plan.blocks if not is_removed(model, block.name)]
    removed_now = [block for block in present_blocks if block.name in config.removed_blocks]
    present = current_widths(model, plan, without=[block.name for block in removed_now])
    widths = _widths_to_reach(present, config)
    # Tensors that lose channels are replaced by narrower ones, so they are shared; only the rest is copied.
    replaced = {member[0] for group in plan.graph["groups"] if group["name"] in widths for member in group["members"]}
    shared = {
        name: tensor for name, tensor in shareable_tensors(model).items() if plan.graph["same"].get(name) in replaced
    }
    pruned = weight_sharing_copy(model, shared, removed_now)
    kept_indices = all_indices(pruned)
    exact, fit = True, None
    if widths:
        analysis = at_widths(from_plain(plan.graph), {name: max(1, width) for name, width in present.items()})
        groups = [group for group in analysis.groups if group.name in widths]
        # Forward passes may leave traces in a network.
        scored = weight_sharing_copy(model, shareable_tensors(model), removed_now) if looks_at_data(config) else pruned
        inputs = inputs_on(scored, calibration or list, seed)
        scores = channel_scores(
            scored, groups, config.criterion, calibration=calibration, loss=loss, seed=seed, inputs=inputs
        )
        lost = {name: least_important(scores[name], present[name] - width) for name, width in widths.items()}
        kept_indices = remove_channels(pruned, analysis, lost)
        exact = all(group.exact for group in groups)
        if config.reconstruct:
            fit = partial(reconstruct, pruned, scored, kept_indices, _readers(groups), inputs)
    reached = current_widths(pruned, plan)
    for name, asked in widths.items():
        if reached[name] != asked:
            raise PruningError(
                f"group {name} must keep {asked} channels, but kept {reached[name]}. Leave it out of the search."
            )
    if widths or removed_now:
        try:
            prove_pruned(pruned, model, kept_indices, removed_now, example_inputs, exact=exact)
        except PruningError as error:
            raise PruningError(
                f"the network can't be pruned as asked: {error}. Run `autoprune plan` for what can be pruned."
            ) from error
    if fit is not None:
        fit()
    gone = tuple(block.name for block in plan.blocks if block in removed_now or block not in present_blocks)
    return Pruned(pruned, reached, gone, kept_indices)


def looks_at_data(config: PruningConfig) -> bool:
    """Whether pruning as asked takes calibration batches."""
    return config.reconstruct or needs_data(config.criterion)


def _readers(groups: Collection[DependencyGroup]) -> set[TensorDim]:
    """Find the tensor dimensions that read channels of these groups, and none over which a norm takes statistics."""
    read = {(tensor_dim, group.exact) for group in groups for tensor_dim in group.consumers}
    return {tensor_dim for tensor_dim, exact in read if exact and (tensor_dim, False) not in read}


def _check_names(kind: str, names: Collection[str], known: Collection[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise PruningError(
            f"unknown {kind} '{unknown[0]}'{hint}. Run `autoprune plan` for the {kind}s of this network."
        )


def _widths_to_reach(present: Mapping[str, int], config: PruningConfig) -> dict[str, int]:
    """Return the asked widths that are below what the network has."""
    widths: dict[str, int] = {}
    for name, asked in config.widths.items():
        if present[name] == 0 and any(name.startswith(block + ".") for block in config.removed_blocks):
            continue
        if not isinstance(asked, Integral):
            raise PruningError(f"widths['{name}']: the channels to keep must be a whole number, got {asked!r}.")
        if not 1 <= asked <= present[name]:
            raise PruningError(
                f"widths['{name}']: 1 <= channels to keep <= {present[name]} (those present) must hold, got {asked}."
            )
        if asked < present[name]:
            widths[name] = asked
    return widths
