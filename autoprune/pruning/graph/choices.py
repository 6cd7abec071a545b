"""Which way to split a dimension, where several would do.

A view of ``[channels]`` as ``[rows, columns]`` lets whole rows leave (attention heads) or whole columns (a channel
shuffle), a grouped convolution whole groups or the same channels of each group. Layers of one class choose alike.
"""

from collections.abc import Callable, Mapping, Sequence

from autoprune.pruning.graph.dependency_graph import CONVOLUTION, ChoiceKey, DependencyGraph

Judge = Callable[[dict[ChoiceKey, int]], tuple[DependencyGraph, int, set[str]]]
"""Choices -> (the dependency graph, parameters that channels take along, layers that these are in)."""


def best_choices(judge: Judge, pinned: Mapping[ChoiceKey, int], max_trials: int = 60) -> dict[ChoiceKey, int]:
    """Change one choice at a time, or all of a class alike, for as long as channels take more parameters along.

    A choice that makes no difference keeps its first option: whole rows of a view (attention heads), the finer channels
    of a convolution.

    Args:
        pinned: Choices that are made already.
    """
    taken = dict(pinned)
    graph, touched, layers = judge(taken)
    n_trials = 0

    def improve(keys: Sequence[ChoiceKey]) -> bool:
        """Take the best option for these choices together; say whether another than now is better."""
        nonlocal taken, graph, touched, layers, n_trials
        improved = False
        for option in range(keys[0][2]):
            if all(_taken(graph, taken, key) == option for key in keys) or n_trials >= max_trials:
                continue
            trial = taken | dict.fromkeys(keys, option)
            n_trials += 1
            trial_graph, more, trial_layers = judge(trial)
            if more > touched:
                taken, graph, touched, layers, improved = trial, trial_graph, more, trial_layers, True
        return improved

    improved = True
    while improved and n_trials < max_trials:
        improved = False
        keys = [key for key in dict.fromkeys(choice.key for choice in graph.choices) if key not in pinned]
        for key in keys:
            if key[0].removeprefix(CONVOLUTION) not in layers:
                improved |= improve([key])
        # Queries and keys are split alike or not at all, which takes several choices at once.
        for owner, n_options in {(key[0], key[2]): None for key in keys if not key[0].startswith(CONVOLUTION)}:
            alike = [key for key in keys if (key[0], key[2]) == (owner, n_options)]
            if not improved and len(alike) > 1:
                improved |= improve(alike)
    return taken


def _taken(graph: DependencyGraph, taken: Mapping[ChoiceKey, int], key: ChoiceKey) -> int:
    return taken.get(key, {choice.key: choice.taken for choice in graph.choices}[key])
