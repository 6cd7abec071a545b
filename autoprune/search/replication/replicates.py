"""What is trained again to certify a front: which trials, in which ways, with which seeds."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from autoprune.study.records import ancestors
from autoprune.study.seeds import derive_seed
from autoprune.training.schedules import stretched
from autoprune.trial import Replicate, RunId, TrialConfig


def lineage(number: int, trials: Mapping[int, TrialConfig]) -> list[TrialConfig]:
    """A trial and all its ancestors, the one that starts from the dense network first."""
    parents = {each: trials[each].parent for each in trials}
    return [trials[each] for each in ancestors(parents, number)]


def replicates_of(
    front: Collection[int], trials: Mapping[int, TrialConfig], n_seeds: int, study_seed: int
) -> dict[RunId, TrialConfig]:
    """All replicates that certify a front, in the order in which they are best run.

    With every seed each trial of the front and each ancestor of one is repeated once along its lineage, and each trial
    of the front once from dense, unless it started there: then that is the same.

    Args:
        front: Numbers of the front's trials.
        trials: Configurations of these and of all their ancestors, by number.
    """
    lines = {number: lineage(number, trials) for number in sorted(front)}
    along = sorted({trial.number for line in lines.values() for trial in line})
    replicates: dict[RunId, TrialConfig] = {}
    for index in range(n_seeds):
        for number in along:
            replicate = Replicate(number, index)
            replicates[replicate] = _along(trials[number], replicate, study_seed, with_test=number in lines)
        for number, line in lines.items():
            if len(line) > 1:
                replicate = Replicate(number, index, from_dense=True)
                replicates[replicate] = _from_dense(line, replicate, study_seed)
    return replicates


def _along(trial: TrialConfig, replicate: Replicate, study_seed: int, *, with_test: bool) -> TrialConfig:
    """A trial again, from its parent's replicate with the same seed."""
    return replace(
        trial,
        run=replicate,
        seed=derive_seed(study_seed, trial.number, f"certification {replicate.index}"),
        with_test=with_test,
    )


def _from_dense(line: list[TrialConfig], replicate: Replicate, study_seed: int) -> TrialConfig:
    """The last trial of a lineage again, from dense in one go: over all the lineage's epochs, by its own schedules."""
    trial, epochs = line[-1], sum(each.epochs for each in line)
    return replace(
        trial,
        run=replicate,
        seed=derive_seed(study_seed, trial.number, f"certification {replicate.index} from dense"),
        epochs=epochs,
        lr_schedule=stretched(trial.lr_schedule, epochs / trial.epochs),
        batch_size_schedule=stretched(trial.batch_size_schedule, epochs / trial.epochs),
        parent=None,
        with_test=True,
    )
