"""`autoprune plan`: what of a network can be pruned, and what a search would look over."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from autoprune.config import SearchConfig
    from autoprune.pruning.sensitivity.map import SensitivityMap
    from autoprune.search.validate import ValidatedSpace


PICTURE_FORMATS = (".png", ".svg", ".pdf")


def plan(
    space: Annotated[Path, typer.Argument(help="The space file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Cut each group alone to several widths and measure.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Picture of the sensitivity (png, svg or pdf); left out: in the study's folder, or else here.",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, help="Training examples to measure sensitivity on; left out: 2048.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder that holds the studies.")] = Path("results"),
) -> None:
    """Show what can be pruned, what can't and why, the dense cost and the search dimensions; trains nothing."""
    _check_options(sensitivity, plot, examples)
    import json

    import torch

    from autoprune.cost import measure_cost
    from autoprune.report.console import make_console
    from autoprune.report.plan import plan_record, plan_tables
    from autoprune.search.prepare import rank_plan, saved_size
    from autoprune.search.sensitivity import trained_network
    from autoprune.search.space import SearchSpace
    from autoprune.search.study_data import check_study_data
    from autoprune.search.validate import in_file, read_space, validate_space
    from autoprune.study.folder import StudyFolder
    from autoprune.tasks.working_folder import working_in

    checked = validate_space(read_space(space))
    spec, task, model, table = checked.spec, checked.task, checked.model, checked.table
    folder = StudyFolder(results / spec.study)
    device = torch.device("cpu")
    with in_file(checked.file.path):
        for warning in check_study_data(checked, folder).warnings:
            make_console(stderr=True).print(f"warning: {warning}", soft_wrap=True)
    if sensitivity:
        model = trained_network(checked, folder)
    trained = sensitivity or spec.task.weights is not None
    with working_in(checked.file.base_dir):
        found = rank_plan(spec, task, checked.plan, model, device) if trained else checked.plan
        cost = measure_cost(model, task.example_inputs(), saved_size(model, spec), device, latency=True)
    layer = spec.method("layer")
    importance = layer.importance if trained and layer is not None else ""
    dimensions = SearchSpace(spec, found).dimensions()
    measured = _measure(checked, model, examples) if sensitivity else None
    if measured is not None and plot is None and not as_json:
        inside = results / spec.study
        plot = inside / "sensitivity.png" if inside.is_dir() else Path(f"{spec.study}-sensitivity.png")
    if measured is not None and plot is not None:
        _draw(measured, spec, plot)
    if as_json:
        print(json.dumps(plan_record(found, table, cost, dimensions, measured, ranked=trained), indent=1))
        return
    console = make_console()
    for part in plan_tables(found, table, cost, dimensions, importance=importance):
        console.print(part)
        console.print()
    if measured is not None and plot is not None:
        _print_sensitivity(console, checked, measured, plot)


def _check_options(sensitivity: bool, plot: Path | None, examples: int | None) -> None:
    if not sensitivity and (plot is not None or examples is not None):
        raise typer.BadParameter("--plot and --examples belong to --sensitivity: give that, too.")
    if plot is not None and plot.suffix not in PICTURE_FORMATS:
        raise typer.BadParameter(f"--plot must end in {', '.join(PICTURE_FORMATS)}, got {plot}.")
    if plot is not None and not plot.absolute().parent.is_dir():
        raise typer.BadParameter(f"--plot: no folder {plot.parent}. Make it, or name another one.")


def _measure(checked: "ValidatedSpace", model: "nn.Module", examples: int | None) -> "SensitivityMap":
    """Measure with a line of progress, if someone sits at the terminal."""
    from rich.progress import Progress

    from autoprune.report.console import make_console
    from autoprune.search.sensitivity import measure_sensitivity

    console = make_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("measuring the sensitivity", total=None)
        return measure_sensitivity(
            checked, model, examples, lambda done, total: progress.update(bar, completed=done, total=total)
        )


def _draw(measured: "SensitivityMap", spec: "SearchConfig", plot: Path) -> None:
    from autoprune.errors import StudyError
    from autoprune.report.sensitivity_chart import draw_sensitivity

    try:
        title = f"{spec.study}: {spec.metric.name} when one group alone is cut, without retraining"
        draw_sensitivity(measured, spec.metric, plot, title)
    except OSError as error:
        raise StudyError(f"{plot}: can't be written: {error.strerror}. Name another file with --plot.") from None


def _print_sensitivity(console: "Console", checked: "ValidatedSpace", measured: "SensitivityMap", plot: Path) -> None:
    from autoprune.pruning.sensitivity.measure import KEPT_SHARES
    from autoprune.report.sensitivity import sensitivity_table
    from autoprune.search.sensitivity import first_criterion

    criterion, multiple = first_criterion(checked.spec), checked.spec.round_to
    console.print(sensitivity_table(checked.plan, measured, checked.spec.metric, KEPT_SHARES, multiple, criterion))
    console.print(f"\n  {plot}  the same as a picture", soft_wrap=True)
