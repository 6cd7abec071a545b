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
    from rich.console import Console

    from autoprune.config import load_config
    from autoprune.report.lineage import lineages_table
    from autoprune.report.tables import certification_table, front_table, is_certified
    from autoprune.study.dense_reference import DenseReference
    from autoprune.study.folder import StudyFolder
    from autoprune.study.records import LINEAGE_SIGN
    from autoprune.study.tables import DENSE, known_test_accuracy

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv can't be used together")
    folder = StudyFolder.existing(study)
    front = folder.read_frame(folder.front)
    if as_json:
        front["lineage"] = front["lineage"].map(lambda line: [int(number) for number in line.split(LINEAGE_SIGN)])
        print(front.to_json(orient="records", indent=1))
    elif as_csv:
        print(front.to_csv(index=False), end="")
    else:
        spec = load_config(folder.space)
        test = known_test_accuracy(folder)
        dense = DenseReference.read(folder)
        console = Console()
        console.print(front_table(front, dense, spec.objectives, dense_test=test.get(DENSE)))
        console.print(lineages_table(front))
        if is_certified(front):
            console.print("", certification_table(front))
