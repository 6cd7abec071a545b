"""Markdown tables, as README has them."""

from collections.abc import Iterable, Sequence


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the headings, the rule below them, and a line a row."""
    return [_line(headings), "|" + "---|" * len(headings), *(_line(row) for row in rows)]


def short(value: float) -> str:
    """Write a share below 1 with three digits and no leading zero, such as .482."""
    return f"{value:.3f}".removeprefix("0")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
