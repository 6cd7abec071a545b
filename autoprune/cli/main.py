"""`autoprune`: the commands, and how errors reach the user."""

import sys
from typing import Annotated

import typer

from autoprune.cli.export import export
from autoprune.cli.pareto import pareto
from autoprune.cli.plan import plan
from autoprune.cli.search import search
from autoprune.cli.show import show
from autoprune.cli.status import status
from autoprune.errors import AutopruneError, describe_error, printable

app = typer.Typer(
    help="Search jointly over learning-rate schedule, batch-size schedule and pruning ratios of a PyTorch network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (search, plan, status, pareto, show, export):
    app.command()(command)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    global _debug
    _debug = debug


_debug = False


def main() -> None:
    """Run the command line; a mistake of the user's ends with its message and exit code 2."""
    try:
        app()
    except AutopruneError as error:
        if _debug:
            raise
        print("autoprune: " + "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if _debug:
            raise
        print(f"autoprune: unexpected {describe_error(error)}. --debug shows the traceback.", file=sys.stderr)
        sys.exit(1)
