"""`autoprune show`: how one trial's network came to be."""

from pathlib import Path
from typing import Annotated

import typer


def show(
    study: Annotated[Path, typer.Argument(help="The study's folder, results/NAME.", show_default=False)],
    trial: Annotated[int, typer.Argument(help="The trial's number.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a trial's lineage: every step of training that led to its network, from the dense one on."""
    import json
    from dataclasses import asdict

    from autoprune.report.console import make_console
    from autoprune.report.lineage import steps_table, widths_table
    from autoprune.study.reader import StudyReader

    opened = StudyReader(study)
    steps = opened.lineage(trial)
    epochs, epochs_dense = steps[-1]["epochs_lineage"], opened.dense.epochs
    if as_json:
        shown = {"metric": asdict(opened.config.metric), "epochs_lineage": epochs, "epochs_dense": epochs_dense}
        print(json.dumps(shown | {"lineage": steps}, indent=1))
        return
    console = make_console()
    console.print(steps_table(steps, opened.config.objectives, opened.config.metric))
    console.print(f"epochs of the trials: {epochs}; of the dense network before them: {epochs_dense}")
    widths = opened.plan.group_widths
    if widths:
        console.print(widths_table(steps, widths))
