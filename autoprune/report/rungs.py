"""How far the first part of a trial tells its end, as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from autoprune.report.tables import plain_table
from autoprune.study.rungs import MIN_CORRELATION, MIN_PAIRS, Rung


def rungs_table(rungs: Sequence[Rung], metric: str, *, stop_early: bool) -> Table:
    """A row a rung, with the trials that reached it and their rank correlation with the end.

    Args:
        metric: The metric's name.
        stop_early: Whether the study stops trials; otherwise the table is advice on whether it should.
    """
    columns = (">after", ">trials", ">finished", ">correlation")
    table = plain_table(f"rank correlation with the final {metric}", *columns)
    table.caption = (
        f"Spearman's, over the finished trials, from {MIN_PAIRS} on. "
        f"stop_early is {'on' if stop_early else 'off'}: "
        f"{'no trial is' if stop_early else 'no trial would be'} stopped at a rung below {MIN_CORRELATION:g}."
    )
    for rung in rungs:
        correlation = "-" if rung.correlation is None else f"{rung.correlation:.2f}"
        table.add_row(f"{rung.share:.0%} of its epochs", str(rung.n_trials), str(rung.n_finished), correlation)
    return table
