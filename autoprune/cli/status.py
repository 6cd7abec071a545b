"""`autoprune status`: how a study stands."""

from pathlib import Path
from typing import Annotated

import typer


def status(
    study: Annotated[Path, typer.Argument(help="The study's folder, results/NAME.", show_default=False)],
) -> None:
    """Say how many trials have ended, are running or are waiting, and what failed."""
    from collections import Counter

    from rich.console import Console

    from autoprune.search.records import result_of, source_of, target_of
    from autoprune.search.storage import load_study
    from autoprune.spec import load_spec
    from autoprune.store import StudyFolder

    folder = StudyFolder.existing(study)
    spec = load_spec(folder.space)
    console = Console(highlight=False)
    if not folder.plan.exists():
        console.print(f"{spec.study}: no trials yet; the dense network or the plan is not done.")
        return
    loaded = load_study(folder, spec.search.storage, spec.study)
    trials = loaded.get_trials(deepcopy=False)
    own = [trial for trial in trials if source_of(trial) is None]
    results = [result for result in map(result_of, own) if result is not None]
    counts = Counter(result.state for result in results)
    open_states = Counter(trial.state.name for trial in trials if not trial.state.is_finished())
    n_trials = target_of(loaded, spec.search.trials)
    console.print(f"{spec.study}: {len(results) - counts['infeasible']} of {n_trials} trials have ended")
    for name in ("finished", "stopped", "failed", "infeasible"):
        if counts[name]:
            console.print(f"  {counts[name]:5d} {name}")
    for state, name in (("RUNNING", "running, or cut off by a crash"), ("WAITING", "waiting")):
        if open_states[state]:
            console.print(f"  {open_states[state]:5d} {name}")
    if len(own) < len(trials):
        console.print(f"  {len(trials) - len(own):5d} taken over from {spec.search.warm_start}, not counted above")
    for result in results:
        if result.state == "failed":
            console.print(f"  trial {result.number} failed: {result.error}", soft_wrap=True)
