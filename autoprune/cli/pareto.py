"""`autoprune pareto`: the front of a study."""

from pathlib import Path
from typing import Annotated

import typer


def pareto(
    study: Annotated[Path, typer.Argument(help="The study's folder, results/NAME.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Print the front: the trials that no other trial beats in every objective, and what each descends from."""

    from autoprune.report.console import make_console
    from autoprune.report.ending import nothing_finished
    from autoprune.report.lineage import lineages_table
    from autoprune.report.tables import certification_table, front_table, is_certified
    from autoprune.study.reader import StudyReader

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv can't be used together")
    opened = StudyReader(study)
    front = opened.front()
    if as_json:
        front["lineage"] = front["number"].map(opened.front_lineages())
        print(front.to_json(orient="records", indent=1))
    elif as_csv:
        print(front.to_csv(index=False), end="")
    else:
        console = make_console()
        config, dense_test = opened.config, opened.test_metric(None)
        console.print(front_table(front, opened.dense, config.objectives, config.metric, dense_test=dense_test))
        if front.empty:
            console.print(nothing_finished(opened.status()), soft_wrap=True)
            return
        console.print(lineages_table(front, config.metric))
        if is_certified(front):
            console.print("", certification_table(front, config.metric))
