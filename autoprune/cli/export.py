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
    from rich.console import Console

    from autoprune.export import export_trial
    from autoprune.report.tables import quantity
    from autoprune.search.session import dense_costs
    from autoprune.store import StudyFolder

    result, folder, manifest = export_trial(StudyFolder.existing(study), select, out, formats)
    console = Console(highlight=False)
    costs = dense_costs(result.cost) if result.cost else {}
    shown = [f"{name} {quantity(name, value)}" for name, value in costs.items() if name != "nonzero_params"]
    console.print(f"trial {result.number}: accuracy {result.accuracy:.4f}, {', '.join(shown)}", soft_wrap=True)
    for name, record in manifest.formats.items():
        batch = "" if record.batch == "dynamic" else f", for a batch of {record.batch} only"
        console.print(f"  {name}: loaded again, output differs by at most {record.max_difference:.1e}{batch}")
    for name, file in manifest.files.items():
        console.print(f"  {folder / name}  {file.bytes:,} bytes", soft_wrap=True)
