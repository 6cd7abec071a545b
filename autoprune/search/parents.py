"""Which trained network a trial starts from."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from autoprune.pruning.methods import PRUNING_METHODS
from autoprune.pruning.plan import PruningPlan
from autoprune.trial import PruningConfig, TrialConfig, TrialResult


def nearest_parent(
    config: TrialConfig,
    ended: Iterable[tuple[TrialConfig, TrialResult]],
    plan: PruningPlan,
    has_model: Callable[[int], bool],
) -> TrialConfig:
    """Start a trial from the cheapest finished trial that still holds all that the new one keeps.

    A trial qualifies if it is at least as wide in every group, has removed no block that the new one keeps, and has
    zeroed no larger share of any weight. Where none does, the trial starts from the dense network.

    Args:
        ended: Trials that have ended.
        has_model: Whether a trial's network is kept.
    """
    best: tuple[int, int] | None = None
    for other, result in ended:
        if result.cost is None or result.state != "finished":
            continue
        this = result.cost.flops, result.number
        cheaper = best is None or this < best
        if cheaper and _holds(result, other.pruning, config.pruning, plan) and has_model(result.number):
            best = this
    return config if best is None else replace(config, parent=best[1])


def _holds(wider: TrialResult, wider_pruning: PruningConfig, narrower: PruningConfig, plan: PruningPlan) -> bool:
    return all(method.can_follow(wider, wider_pruning, narrower, plan) for method in PRUNING_METHODS.values())
