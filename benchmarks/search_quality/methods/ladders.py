"""The careful person: a few learning rates on two networks, then uniform ratios."""

from collections.abc import Callable

from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import N_BUDGETS, Method, Widths, train_budgets, tuned_rate, uniform_steps


def ladder_dense(lab: Lab) -> None:
    """As many ratios as there are trials to pay, each from the dense network."""
    _ladder(lab, tuned_rate(lab), _affordable(lab), lab.left, inherit=False)


def ladder_dense_long(lab: Lab) -> None:
    """Twelve ratios, trained longer, each from the dense network."""
    _ladder(lab, tuned_rate(lab), N_BUDGETS, lab.left, inherit=False)


def ladder_inherited(lab: Lab) -> None:
    """Twelve ratios, each from the network before it; then again, in as many steps as are left to pay."""
    rate = tuned_rate(lab)
    _ladder(lab, rate, N_BUDGETS, N_BUDGETS * lab.trial_epochs, inherit=True)
    _ladder(lab, rate, _affordable(lab), lab.left, inherit=True)


def ladder_inherit_long(lab: Lab) -> None:
    """Twelve ratios, trained longer, each from the network before it."""
    _ladder(lab, tuned_rate(lab), N_BUDGETS, lab.left, inherit=True)


def _affordable(lab: Lab) -> int:
    return max(1, lab.left // lab.trial_epochs)


def _ladder(lab: Lab, rate: Callable[[float], float], n_steps: int, epochs: int, *, inherit: bool) -> None:
    def as_it_is(widths: Widths, parent: int | None) -> Widths:
        return widths

    train_budgets(lab, rate, uniform_steps(lab, n_steps), as_it_is, epochs, inherit)


LADDERS = {
    method.__name__: Method(method)
    for method in (ladder_dense, ladder_dense_long, ladder_inherited, ladder_inherit_long)
}
