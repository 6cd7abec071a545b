"""`autoprune export`: write one trial's network in formats that can be shipped."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    study: Annotated[Path, typer.Argument(help="The study's folder, results/NAME.", show_default=False)],
    select: Annotated[
        str, typer.Option(help="knee, best, a trial number, or a condition such as 'flops<=0.5x'.")
    ] = "knee",
    out: Annotated[Path | None, typer.Option(help="Folder to write; results/NAME/export-TRIAL if left out.")] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="safetensors, onnx or torch; all three if left out.")
    ] = None,
) -> None:
    """Export a network; every format is loaded again and its output compared before it is kept."""

    from autoprune.export import export_trial
    from autoprune.export.manifest import FILE_NAME
    from autoprune.export.select import uncertain_drop
    from autoprune.report.console import make_console
    from autoprune.report.tables import front_table
    from autoprune.study.reader import StudyReader

    opened = StudyReader(study)
    result, folder, manifest = export_trial(opened, select, out, formats)
    console = make_console()
    trials = opened.frame()
    row = trials[trials["number"] == result.number]
    config, dense_test = opened.config, opened.test_metric(None)
    console.print(front_table(row, opened.dense, config.objectives, config.metric, dense_test=dense_test))
    unsure = uncertain_drop(row, opened.dense, config.metric, config.constraints.metric_drop)
    if unsure is not None:
        console.print(f"  {unsure}")
    for name, record in manifest.formats.items():
        batch = "" if record.batch == "dynamic" else f", for a batch of {record.batch} only"
        console.print(
            f"  {name}: loaded again, output differs by at most {record.max_difference:.1e}{batch}", soft_wrap=True
        )
    console.print(f"  the network was compared with {manifest.compared_with}", soft_wrap=True)
    console.print(f"{folder}:", soft_wrap=True)
    sizes = {name: file.bytes for name, file in manifest.files.items()}
    for name, size in (sizes | {FILE_NAME: (folder / FILE_NAME).stat().st_size}).items():
        console.print(f"  {name}  {size:,} bytes")
