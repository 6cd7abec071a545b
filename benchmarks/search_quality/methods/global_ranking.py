"""Torch-Pruning's global ranking decides the widths of every budget; cutting and training are those of all methods.

All channels of all groups are ranked together by their L2 norm, normalised group by group, as its defaults have it; the
threshold is moved until the MACs fit the budget. Budgets are those of the ladder of twelve uniform ratios.
"""

import copy
import importlib.util
import warnings

from torch import nn

from autoprune.network.call import call_model
from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import (
    N_BUDGETS,
    Method,
    MethodUnavailableError,
    Widths,
    train_budgets,
    tuned_rate,
    uniform_steps,
)

BISECTIONS = 12


def tp_global_one_shot(lab: Lab) -> None:
    """The dense network is ranked once; every budget starts from it."""
    _budgets(lab, inherit=False)


def tp_global_iterative(lab: Lab) -> None:
    """Every budget ranks and cuts the network trained for the budget before it."""
    _budgets(lab, inherit=True)


def global_widths(lab: Lab, share: float, parent: int | None) -> Widths:
    """The widths of the threshold that keeps at most a share of the dense MACs; as near to it as the ratios allow."""
    model = lab.model(parent)
    held = {group: _width(model, group) for group in lab.groups}
    if lab.macs_share(held) <= share:
        return held
    low, high = 0.0, 1.0
    found = _narrowest(lab, held)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        widths = _ranked(lab, model, held, middle)
        if lab.macs_share(widths) <= share:
            found, high = widths, middle
        else:
            low = middle
    return found


def _ranked(lab: Lab, model: nn.Module, held: Widths, ratio: float) -> Widths:
    """Channels left of each group when ``ratio`` of all channels go, no group ending below its least width."""
    import torch_pruning as tp

    pruned = copy.deepcopy(model)
    least = _narrowest(lab, held)
    pruner = tp.pruner.BasePruner(
        pruned,
        lab.task.example_inputs(),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=[
            module
            for name, module in pruned.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and name not in lab.groups
        ],
        max_pruning_ratio=lab.max_ratio,
        forward_fn=call_model,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner.step()
    return {group: max(least[group], _width(pruned, group)) for group in lab.groups}


def _narrowest(lab: Lab, held: Widths) -> Widths:
    return {group: min(held[group], lab.space.width(group, lab.max_ratio)) for group in lab.groups}


def _width(model: nn.Module, group: str) -> int:
    layer = model.get_submodule(group)
    return int(layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features)


def _budgets(lab: Lab, inherit: bool) -> None:
    if importlib.util.find_spec("torch_pruning") is None:
        raise MethodUnavailableError("needs torch-pruning: pip install -c constraints.txt -e '.[dev]'.")
    shares = [lab.macs_share(widths) for widths in uniform_steps(lab, N_BUDGETS)]

    def decide(share: float, parent: int | None) -> Widths:
        return global_widths(lab, share, parent)

    train_budgets(lab, tuned_rate(lab), shares, decide, lab.left, inherit)


GLOBAL_RANKINGS = {method.__name__: Method(method) for method in (tp_global_one_shot, tp_global_iterative)}
