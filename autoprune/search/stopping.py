"""Stopping inside a trial: by non-domination in score at a rung and known cost, against the trials before it."""

import itertools

from autoprune.study.rungs import MIN_CORRELATION, N_RUNGS, Rungs

N_BETTER = 3
"""Trials that must have scored at least as high at the same rung, at no more cost, for a trial to be stopped."""


def should_stop(rungs: Rungs, number: int) -> bool:
    """Whether a trial should end after its last recorded epoch.

    It is compared at the end of each quarter of its epochs, with trials that are no longer than it.

    Source:
        Non-dominated ranks inside rungs: Schmucker et al. 2021, Multi-objective Asynchronous Successive Halving,
        arXiv 2106.12639. The rule here asks for a number of better trials instead of a share of the rung, so that a
        trial at a cost that few have tried is never stopped.
    """
    curve, epochs = rungs.curve(number), rungs.epochs[number]
    rung = N_RUNGS * len(curve) // epochs
    if not 0 < rung < N_RUNGS:
        return False
    score, costs = curve[-1], rungs.costs[number]
    better = (
        other
        for other, reached in rungs.at(rung).items()
        if other != number
        and rungs.epochs[other] <= epochs
        and reached >= score
        and all(cost <= own for cost, own in zip(rungs.costs[other], costs, strict=True))
    )
    if len(list(itertools.islice(better, N_BETTER))) < N_BETTER:
        return False
    correlation = rungs.rung(rung).correlation
    return correlation is None or correlation >= MIN_CORRELATION
