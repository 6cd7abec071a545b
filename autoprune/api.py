"""The pruning plan of a model in Python: what can be pruned, what it would cost, and the pruned model."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from autoprune.cost.table import NetworkCost, build_table
from autoprune.errors import PruningError
from autoprune.formats.save_pretrained import guard_pruned
from autoprune.network.call import BatchDim, Inputs, plain_inputs
from autoprune.network.device import device_of
from autoprune.pruning.apply import prune
from autoprune.pruning.blocks.importance import angular_distances, loss_rises, mean_loss
from autoprune.pruning.channels.ranking import global_scores, global_widths
from autoprune.pruning.plan import Unprunable
from autoprune.pruning.planner import make_plan
from autoprune.pruning.sensitivity.map import SensitivityMap
from autoprune.pruning.sensitivity.measure import KEPT_SHARES, SensitivityMeter, measure_map, points_to_measure
from autoprune.tasks.classification import cross_entropy
from autoprune.tasks.task import Loss
from autoprune.training.batch_norm import recalibrate_on_batches
from autoprune.trial import PruningConfig

Batch = tuple[Inputs, torch.Tensor]
"""Inputs and targets."""


@dataclass(frozen=True)
class GroupShare:
    """Channels that leave together, and what they govern.

    Attributes:
        width: Channels in the given model.
        layers: Modules that lose something with a channel, in module order.
        params_share: Share of the model's parameters that would go with all of them.
        macs_share: Share of its multiply-accumulates.
        exact: Whether the model without the channels equals the masked one; not where a norm takes its statistics over
            them, as over a hidden size.
    """

    name: str
    width: int
    layers: tuple[str, ...]
    params_share: float
    macs_share: float
    exact: bool = True


@dataclass(frozen=True)
class BlockShare:
    """A residual block, such as a transformer layer, that can be removed.

    Attributes:
        params_share: Share of the model's parameters that goes with it.
        macs_share: Share of its multiply-accumulates.
    """

    name: str
    params_share: float
    macs_share: float


class ModelPlan:
    """What of a model can be pruned, proved by running it forward and backward.

    Args:
        model: It is not touched, now or later.
        example_inputs: A tensor, or a tuple or mapping of tensors, whose first dimension is the batch.
        hidden_sizes: Make groups of channels too over which norms take their statistics. The model without them is not
            the masked one, so its values are not compared with that; it is proved to run and to train.
        batch_dim: ``None`` if the first dimension of the inputs is no batch, as where it is the nodes of a graph: costs
            are then those of all that is given, not of the first example.

    Attributes:
        groups: In module order.
        blocks: In module order.
        left_out: What can't be pruned, and the operation that keeps it.
        uncounted: (operation, module that runs it) of what does much work and is in no count of multiply-accumulates.

    Raises:
        PruningError: If the model can't be changed, or can't run on the inputs or on the first of them alone.
    """

    def __init__(
        self, model: nn.Module, example_inputs: Inputs, *, hidden_sizes: bool = False, batch_dim: BatchDim = 0
    ) -> None:
        if batch_dim not in (0, None) or isinstance(batch_dim, bool):
            raise PruningError(f"batch_dim must be 0 or None, got {batch_dim!r}.")
        self._model, self._inputs = model, plain_inputs(example_inputs)
        self._plan = make_plan(model, self._inputs, hidden_sizes=hidden_sizes, batch_dim=batch_dim)
        self._table = build_table(
            model,
            self._inputs,
            widths=self._plan.group_widths,
            shrink=self._plan.shrink,
            products=self._plan.products,
            positions=self._plan.positions,
            blocks=self._plan.block_names,
            batch_dim=batch_dim,
        )
        self.groups: tuple[GroupShare, ...] = tuple(
            GroupShare(group.name, group.width, group.layers, *self._table.shares(group.name), exact=group.exact)
            for group in self._plan.groups
        )
        self.blocks: tuple[BlockShare, ...] = tuple(
            BlockShare(name, *self._table.block_shares(name)) for name in self._plan.block_names
        )
        self.left_out: tuple[Unprunable, ...] = self._plan.left_out
        self.uncounted: tuple[tuple[str, str], ...] = self._table.uncounted

    def widths(self, ratio: float | Mapping[str, float]) -> dict[str, int]:
        """Channels that each group keeps at a ratio: rounded, and at least one.

        Args:
            ratio: Share to remove of every group, in [0, 1), or group name -> share; a group not named keeps all.

        Raises:
            PruningError: If a group is unknown or a ratio is out of range.
        """
        if not isinstance(ratio, Mapping | float | int):
            raise PruningError(f"ratio must be a number in [0, 1) or group -> number, got {ratio!r}.")
        ratios = ratio if isinstance(ratio, Mapping) else {group.name: ratio for group in self.groups}
        known = {group.name: group for group in self._plan.groups}
        found: dict[str, int] = {}
        for name, share in ratios.items():
            if name not in known:
                raise PruningError(f"unknown group '{name}'. Known: {', '.join(known) or 'none'}.")
            if not isinstance(share, float | int) or not 0 <= share < 1:
                raise PruningError(f"ratio of '{name}' must be in [0, 1), got {share!r}.")
            found[name] = known[name].width_at(1 - share)
        return found

    def cost(self, widths: Mapping[str, int], blocks: Collection[str] = ()) -> NetworkCost:
        """Parameters, multiply-accumulates and tensor bytes at these widths, exactly, without running anything.

        Args:
            widths: Group name -> channels kept; a group not named keeps all.
            blocks: Blocks removed.

        Raises:
            PruningError: If a group or block is unknown, or a width is below 1 or above the group's.
        """
        for name, width in widths.items():
            dense = self._plan.group_widths.get(name)
            if dense is not None and not 1 <= width <= dense:
                raise PruningError(f"group '{name}' must keep 1 to {dense} channels, got {width}.")
        return self._table.cost(widths, blocks)

    def block_importance(
        self,
        data: Iterable[tuple[Inputs, torch.Tensor]],
        importance: Literal["loss", "angular"] = "loss",
        loss: Loss = cross_entropy,
    ) -> dict[str, float]:
        """How much each block matters, the least important first.

        Args:
            data: Batches of inputs and targets.
            importance: ``"loss"`` is the rise of the mean loss when the block alone is removed, a pass over the data
                for each block; ``"angular"`` the angle by which the block turns its input
                (:func:`autoprune.pruning.blocks.importance.angular_distances`), one pass for all.
            loss: Loss of outputs and targets, for ``"loss"``; the mean over a batch.

        Raises:
            PruningError: If ``importance`` is unknown, there is no data, or the given model has no finite loss.
        """
        batches = _batches(data) or []
        if importance not in ("loss", "angular"):
            raise PruningError(f"unknown importance '{importance}'. Known: angular, loss.")
        if not batches:
            raise PruningError("there must be at least one batch to rank blocks on, got none.")
        if importance == "angular":
            found = angular_distances(self._model, self._plan.blocks, (inputs for inputs, _ in batches))
        else:
            found = loss_rises(self._model, self._plan.blocks, lambda model: mean_loss(model, batches, loss))
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def widths_at(
        self,
        *,
        flops: float | None = None,
        params: float | None = None,
        criterion: str = "l2",
        data: Iterable[Batch] | None = None,
        loss: Loss = cross_entropy,
    ) -> dict[str, int]:
        """Widths at which a share of the model is left: the least important channels go, whichever group they are in.

        The scores of each group are scaled to a mean of 1, so that they compare. Channels go one by one in that order
        until what is left, counted exactly, is at most the share; every group keeps at least one.

        Args:
            flops: Largest share of the model's multiply-accumulates to keep, in (0, 1].
            params: Instead, largest share of its parameters.
            criterion: As :meth:`prune` takes it, with ``data`` and ``loss``.

        Returns:
            Group name -> channels to keep, for :meth:`prune`.

        Raises:
            PruningError: If not exactly one share is given, or it can't be met.
        """
        if (flops is None) == (params is None):
            raise PruningError(f"one of flops and params must be given, got flops={flops}, params={params}.")
        if params is None:
            return self._ranked("flops", flops or 0.0, lambda widths: self.cost(widths).macs, criterion, data, loss)
        return self._ranked("params", params, lambda widths: self.cost(widths).params, criterion, data, loss)

    def prune(
        self,
        ratio: float | Mapping[str, float] | None = None,
        criterion: str = "l2",
        data: Iterable[Batch] | None = None,
        loss: Loss = cross_entropy,
        blocks: Collection[str] = (),
        *,
        scope: Literal["group", "global"] = "group",
        widths: Mapping[str, int] | None = None,
        reconstruct: bool = False,
    ) -> nn.Module:
        """A new model without the least important channels; its output is that of the given one with them masked.

        With ``reconstruct`` it is nearer to that of the given one: the layers that read those channels are then fitted
        to what they gave for the data, but for frozen weights (``requires_grad`` is False). Batch norm's statistics are
        not: train the model, or recalibrate them.

        ``save_pretrained`` of a transformers model raises ExportError where ``from_pretrained`` would not give the
        model back, since its config can't express what was pruned.

        Args:
            ratio: As :meth:`widths` takes it.
            criterion: l1, l2, bn_scale, taylor, fisher, fpgm, lamp, activation, apoz, obs or random.
            data: Batches of inputs and targets, for taylor, fisher, activation, apoz, obs and ``reconstruct``.
            loss: Loss of outputs and targets, for taylor and fisher.
            blocks: Blocks to remove; importance is then that of the model without them. Not with ``scope="global"``.
            scope: ``"group"`` removes the ratio of every group; ``"global"`` removes it of all channels taken together,
                ranked as :meth:`widths_at` ranks them, and takes one number.
            widths: Instead of a ratio, group name -> channels to keep, as from :meth:`widths_at`; a group not named
                keeps all.

        Raises:
            PruningError: If the ratio or widths, the criterion, its data or a block's name won't do, or there is no
                group to take a ratio of.
        """
        if (ratio is None) == (widths is None) and not (ratio is None and blocks):
            raise PruningError(f"either a ratio or widths must be given, got ratio={ratio}, widths={widths}.")
        if scope not in ("group", "global"):
            raise PruningError(f"unknown scope '{scope}'. Known: global, group.")
        batches = _batches(data)
        if not self.groups and isinstance(ratio, float | int) and ratio > 0:
            raise PruningError(self._no_groups())
        if scope == "global":
            if blocks:
                raise PruningError(
                    f"with scope='global', no blocks can be removed in the same call, got {', '.join(blocks)}. Remove "
                    "them first, and make a plan of the result."
                )
            if not isinstance(ratio, float | int) or not 0 <= ratio < 1:
                raise PruningError(f"with scope='global', ratio must be one number in [0, 1), got {ratio}.")
            widths = self._ranked("channels", 1 - ratio, lambda widths: sum(widths.values()), criterion, batches, loss)
        elif widths is None:
            widths = self.widths(ratio or 0.0)
        pruned = prune(
            self._model,
            self._plan,
            PruningConfig(widths=widths, criterion=criterion, reconstruct=reconstruct, removed_blocks=tuple(blocks)),
            example_inputs=self._inputs,
            calibration=None if batches is None else lambda: batches,
            loss=loss,
        )
        return guard_pruned(pruned.model, self._model)

    def _no_groups(self) -> str:
        found = self._plan.main_obstacle
        where = f": {found.module or 'the network'}: {found.reason}" if found else ""
        if found is not None and found.option:
            way_out = f"With autoprune.plan(..., {found.option}=True) it can be."
        elif self.blocks:
            way_out = f"Blocks can be removed: blocks=[{self.blocks[0].name!r}]."
        else:
            way_out = (found.advice if found else "") or "The plan's left_out has all reasons."
        return f"no channels of this network can be pruned{where}. {way_out}"

    def sensitivity(
        self,
        evaluate: Callable[[nn.Module], float],
        *,
        data: Iterable[tuple[Inputs, torch.Tensor]] | None = None,
        criterion: str = "l2",
        loss: Loss = cross_entropy,
        kept_shares: Sequence[float] = KEPT_SHARES,
    ) -> SensitivityMap:
        """How the accuracy falls when each group alone is cut to several widths, without any training.

        Args:
            evaluate: Accuracy, or any number that is better when higher, of a network in evaluation mode; the map calls
                it the score.
            data: Batches of inputs and targets. Each network's batch norm is recalibrated on them before it is
                evaluated, and the criteria that need data look at them; without them batch norm keeps its statistics.
            criterion: As :meth:`prune` takes it.
            loss: Loss of outputs and targets, for taylor.
            kept_shares: Shares of each group's channels to measure at, in (0, 1).

        Raises:
            PruningError: If the criterion, its data or a share won't do.
        """
        batches = _batches(data)
        wrong = [share for share in kept_shares if not 0 < share < 1]
        if wrong:
            raise PruningError(f"kept shares must be in (0, 1), got {wrong[0]}.")
        device = device_of(self._model)
        meter = SensitivityMeter(
            self._model,
            self._plan,
            evaluate,
            example_inputs=self._inputs,
            recalibrate=(lambda model: recalibrate_on_batches(model, (inputs for inputs, _ in batches), device))
            if batches
            else (lambda model: None),
            criterion=criterion,
            calibration=None if batches is None else lambda: batches,
            loss=loss,
        )
        return measure_map(meter, points_to_measure(self._plan, kept_shares))

    def _ranked(
        self,
        what: str,
        share: float,
        size_of: Callable[[Mapping[str, int]], int],
        criterion: str,
        data: Iterable[Batch] | None,
        loss: Loss,
    ) -> dict[str, int]:
        """Widths at which a share of the model's size is left, the globally least important channels removed."""
        if not 0 < share <= 1:
            raise PruningError(f"{what} must be a share in (0, 1], got {share}.")
        if share < 1 and not self.groups:
            raise PruningError(self._no_groups())
        batches = _batches(data)
        calibration = None if batches is None else lambda: batches
        scores = global_scores(self._model, self._plan, criterion, calibration=calibration, loss=loss)
        ceiling = share * size_of(self._plan.group_widths)
        found = global_widths(scores, self._plan, size_of, ceiling)
        if size_of(found) > ceiling:
            least = size_of(found) / size_of(self._plan.group_widths)
            raise PruningError(
                f"{what} can't fall to {share:.3g} of the model: {least:.3g} are left where every group is narrowest."
            )
        return found


def _batches(data: Iterable[Batch] | None) -> list[Batch] | None:
    """The batches, each known to be a pair."""
    batches = None if data is None else list(data)
    for batch in batches or ():
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise PruningError(f"batches must be pairs of inputs and targets, got {type(batch).__name__}.")
    return batches


def plan(model: nn.Module, example_inputs: Inputs, *, hidden_sizes: bool = False, batch_dim: BatchDim = 0) -> ModelPlan:
    """Find what of a model can be pruned; see :class:`ModelPlan`."""
    return ModelPlan(model, example_inputs, hidden_sizes=hidden_sizes, batch_dim=batch_dim)
