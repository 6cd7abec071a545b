"""The console that tables and messages are printed to."""

from rich.console import Console


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that prints every text as it is: a user's ``[/INST]`` is no markup, and ``:x:`` no picture."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)
