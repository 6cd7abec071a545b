"""The tree with one thing taken away or added. Without inheritance it is ``cost_aware_dense``."""

from unittest import mock

from autoprune.search.cost_aware import sampler
from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import Method
from benchmarks.search_quality.methods.search import search


def random_choice(lab: Lab) -> None:
    """Any of the tree's candidates, instead of the one of greatest expected improvement."""
    with mock.patch.object(sampler, "MIN_TRIALS", float("inf")):
        lab.search()


def without_descent(lab: Lab) -> None:
    """The model's choice from the beginning, instead of the planned descent."""
    with mock.patch.object(sampler, "next_step", return_value=None):
        lab.search()


TREE = {"search": {"sampler": "cost_aware", "start": "tree"}}

ABLATIONS = {
    "tree_random_choice": Method(random_choice, TREE, chooses_epochs=True),
    "tree_without_descent": Method(without_descent, TREE, chooses_epochs=True),
    "tree_with_map": search("cost_aware", "tree", chooses_epochs=True, sensitivity=True),
    "tree_fixed_epochs": search("cost_aware", "tree"),
    "tree_stopping": search("cost_aware", "tree", chooses_epochs=True, stop_early=True),
}
