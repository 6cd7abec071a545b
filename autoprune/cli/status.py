"""`autoprune status`: how a study stands."""

from pathlib import Path
from typing import Annotated

import typer


def status(
    study: Annotated[Path, typer.Argument(help="The study's folder, results/NAME.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how many trials have ended, are running or are waiting, what failed, and how far epochs tell the end."""
    import json
    from dataclasses import asdict

    from autoprune.report.console import make_console
    from autoprune.report.ending import failures_by_cause, nothing_finished
    from autoprune.report.rungs import rungs_table
    from autoprune.study.reader import StudyReader

    summary = StudyReader(study).status()
    code = int(summary.has_failed and not summary.counts["waiting"])  # with trials waiting it has not ended
    if as_json:
        print(json.dumps(asdict(summary), indent=1))
        raise typer.Exit(code)
    console = make_console()
    for run, cause in summary.deaths.items():
        console.print(f"{summary.study}: cut off, as the process died ({run}): {cause}", soft_wrap=True)
    if not summary.is_ready:
        console.print(f"{summary.study}: no trials yet; the dense network or the plan is not done.")
        return
    console.print(f"{summary.study}: {summary.n_ended} of {summary.n_trials} trials have ended")
    for name, count in summary.counts.items():
        if count:
            console.print(f"  {count:5d} {'running, or cut off by a crash' if name == 'running' else name}")
    if summary.n_taken_over:
        console.print(f"  {summary.n_taken_over:5d} taken over from {summary.warm_start}, not counted above")
    console.print(f"  {summary.epochs:5d} epochs trained, and {summary.epochs_dense} of the dense network")
    for trials, cause in failures_by_cause(summary):
        console.print(f"  {trials} failed: {cause}", soft_wrap=True)
    if summary.n_certified or summary.failed_repeats:
        failed = len(summary.failed_repeats)
        console.print(f"certification: {summary.n_certified} runs have finished, {failed} failed")
        for path, error in summary.failed_repeats.items():
            console.print(f"  {path}: {error}; delete it to try again", soft_wrap=True)
    if summary.rungs:
        console.print(rungs_table(summary.rungs, summary.metric.name, stop_early=summary.stop_early))
    if summary.has_failed:
        console.print(nothing_finished(summary), style="bold red", soft_wrap=True)
        raise typer.Exit(code)
