"""The careful person: a few learning rates at half width, then uniform ratios."""

from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import N_BUDGETS, Method, Widths, best_rate, train_budgets, uniform_steps


def ladder_dense(lab: Lab) -> None:
    """As many ratios as there are trials to pay, each from the dense network."""
    _ladder(lab, best_rate(lab), _affordable(lab), lab.left, inherit=False)


def ladder_dense_long(lab: Lab) -> None:
    """Twelve ratios, trained longer, each from the dense network."""
    _ladder(lab, best_rate(lab), N_BUDGETS, lab.left, inherit=False)


def ladder_inherited(lab: Lab) -> None:
    """Twelve ratios, each from the network before it; then again, in as many steps as are left to pay."""
    lr = best_rate(lab)
    _ladder(lab, lr, N_BUDGETS, N_BUDGETS * lab.trial_epochs, inherit=True)
    _ladder(lab, lr, _affordable(lab), lab.left, inherit=True)


def ladder_inherit_long(lab: Lab) -> None:
    """Twelve ratios, trained longer, each from the network before it."""
    _ladder(lab, best_rate(lab), N_BUDGETS, lab.left, inherit=True)


def _affordable(lab: Lab) -> int:
    return max(1, lab.left // lab.trial_epochs)


def _ladder(lab: Lab, lr: float, n_steps: int, epochs: int, *, inherit: bool) -> None:
    def as_it_is(widths: Widths, parent: int | None) -> Widths:
        return widths

    train_budgets(lab, lr, uniform_steps(lab, n_steps), as_it_is, epochs, inherit)


LADDERS = {
    method.__name__: Method(method)
    for method in (ladder_dense, ladder_dense_long, ladder_inherited, ladder_inherit_long)
}
