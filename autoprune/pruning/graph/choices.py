"""Which way to split a dimension, where several would do.

A view of ``[channels]`` as ``[rows, columns]`` lets whole rows leave (attention heads) or whole columns (a channel
shuffle), a grouped convolution whole groups or the same channels of each group. Layers of one class choose alike.
"""

from collections.abc import Callable, Mapping

from autoprune.pruning.graph.dependency_graph import CONVOLUTION, ChoiceKey, DependencyGraph

Judge = Callable[[dict[ChoiceKey, int]], tuple[DependencyGraph, int, set[str]]]
"""Choices -> (the dependency graph, parameters that channels take along, layers that these are in)."""


def best_choices(judge: Judge, pinned: Mapping[ChoiceKey, int], max_trials: int = 60) -> dict[ChoiceKey, int]:
    """Change one choice at a time for as long as channels take more parameters along.

    A choice that makes no difference keeps its first option: whole rows of a view (attention heads), the finer channels
    of a convolution.

    Args:
        pinned: Choices that are made already.
    """
    taken = dict(pinned)
    graph, touched, layers = judge(taken)
    n_trials = 0
    improved = True
    while improved and n_trials < max_trials:
        improved = False
        for choice in {choice.key: choice for choice in graph.choices}.values():
            if choice.key in pinned or choice.key[0].removeprefix(CONVOLUTION) in layers:
                continue
            now = taken.get(choice.key, choice.taken)
            for option in range(choice.key[2]):
                if option == now or n_trials >= max_trials:
                    continue
                trial = {**taken, choice.key: option}
                n_trials += 1
                trial_graph, more, trial_layers = judge(trial)
                if more > touched:
                    taken, graph, touched, layers, now, improved = trial, trial_graph, more, trial_layers, option, True
    return taken
