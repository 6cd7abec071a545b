"""A small family of trials written out by hand, and their certification on a tiny study."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from autoprune.search.prepare import PreparedStudy
from autoprune.search.replication.replication import Replication
from autoprune.study.folder import StudyFolder
from autoprune.trial import EpochReport, OptimizerConfig, PruningConfig, ScheduleConfig, TrialConfig, TrialResult
from autoprune.worker import Worker


def trial(number: int, parent: int | None, stem: int, epochs: int = 1, **pruning: Any) -> TrialConfig:
    """A trial that keeps some channels of every group."""
    return TrialConfig(
        run=number,
        seed=100 + number,
        epochs=epochs,
        optimizer=OptimizerConfig("sgd", {"momentum": 0.9}),
        lr_schedule=ScheduleConfig("step", {"lr": 0.02, "factor": 0.5, "every": 1}),
        batch_size_schedule=ScheduleConfig("constant", {"size": 50}),
        pruning=PruningConfig(widths={"stem": stem, "block1.conv1": stem, "block2.conv1": stem}, **pruning),
        parent=parent,
    )


# 0 from dense; 1 and 2 from 0; 3 from 1; 4 from 2.
TRIALS = {
    each.number: each
    for each in (trial(0, None, 6), trial(1, 0, 5), trial(2, 0, 4, epochs=2), trial(3, 1, 3), trial(4, 2, 2))
}


def replication_of(
    session: PreparedStudy, n_seeds: int = 2, front: Collection[int] = (2, 3), trials: dict[int, TrialConfig] = TRIALS
) -> Replication:
    return Replication(session.folder, session.spec, front, trials, n_seeds)


@dataclass
class LoggingWorker:
    """A worker that notes every epoch it has trained, as ``(name of the run, epoch)``.

    A run that goes on tells its last epoch again, with the same training time: that is no other epoch.
    """

    worker: Worker
    epochs: list[tuple[str, int]] = field(default_factory=list)
    told: list[EpochReport] = field(default_factory=list)

    @property
    def folder(self) -> StudyFolder:
        return self.worker.folder

    def run(self, config: TrialConfig) -> Iterator[EpochReport | TrialResult]:
        for event in self.worker.run(config):
            if isinstance(event, EpochReport) and event not in self.told:
                self.told.append(event)
                self.epochs.append((str(event.run), event.epoch))
            yield event

    @property
    def n_test_examples_read(self) -> int:
        return int(self.worker.task.data.test.n_read)  # type: ignore[attr-defined]


def names(session: PreparedStudy, ending: str = ".json") -> set[str]:
    """What lies in the certification's folder."""
    found = {path.name for path in session.folder.certification.iterdir()}
    return {name.removesuffix(ending) for name in found if name.endswith(ending)}
