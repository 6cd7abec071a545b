"""How a network came to be: each step of training from the dense network on, in full."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autoprune.config import SearchConfig
from autoprune.errors import StudyError
from autoprune.study.dense_reference import DenseReference
from autoprune.study.folder import StudyFolder
from autoprune.study.records import RecordedTrial, TrainedTrial, ancestors, config_of, trained_of
from autoprune.study.seeds import derive_seed
from autoprune.trial import OptimizerConfig, ScheduleConfig, to_dict


@dataclass(frozen=True)
class DenseTraining:
    """How the dense network is trained where no weights are given.

    Attributes:
        seed: Of its first weights and of its training.
    """

    epochs: int
    seed: int
    optimizer: OptimizerConfig
    lr_schedule: ScheduleConfig
    batch_size_schedule: ScheduleConfig


def dense_training(spec: SearchConfig) -> DenseTraining:
    """What the space file's section ``dense`` asks for."""
    optimizer = spec.dense.optimizer[0].model_dump()
    lr_schedule = spec.dense.lr_schedule[0].model_dump()
    return DenseTraining(
        epochs=spec.dense.epochs,
        seed=derive_seed(spec.search.seed, 0, "dense"),
        optimizer=OptimizerConfig(optimizer.pop("name"), optimizer),
        lr_schedule=ScheduleConfig(lr_schedule.pop("kind"), lr_schedule),
        batch_size_schedule=ScheduleConfig("constant", {"size": spec.dense.batch_size}),
    )


def lineage_steps(
    folder: StudyFolder, spec: SearchConfig, trials: Sequence[RecordedTrial], number: int
) -> list[dict[str, Any]]:
    """Every step that led to a trial's network, as plain JSON values, enough to take them again by hand.

    The first is the dense network: ``trial`` null, ``metric``, ``loss``, its ``cost`` by name, and either
    ``weights``, the file that was given, or ``epochs``, ``seed``, ``optimizer``, ``lr_schedule`` and
    ``batch_size_schedule``, as it was trained. Then come the trials, oldest first, each from the network before it:
    besides the same,

    - ``state``: ``"finished"`` or ``"stopped"``; ``epochs`` that it was trained, of ``schedule_epochs`` that its
      schedules are laid out over; ``epochs_lineage``, the dense network's not counted;
    - ``pruning``: what was asked, as :class:`autoprune.trial.PruningConfig` has it; ``kept``, the channels of each
      group that were left, and ``removed_blocks``;
    - ``curve``: metric after each epoch, before batch norm was recalibrated.

    Args:
        trials: Those of the study, by number.

    Raises:
        StudyError: If there is no such trial, or it was not trained.
    """
    if not 0 <= number < len(trials):
        has = f"has trials 0 to {len(trials) - 1}" if trials else "has no trial yet"
        raise StudyError(f"{folder.root}: there is no trial {number}; the study {has}.")
    configs = ((trial.number, config_of(trial)) for trial in trials)
    parents = {number: config.parent for number, config in configs if config is not None}
    steps = [_dense_step(folder, spec)]
    for ancestor in ancestors(parents, number):
        trained = trained_of(trials[ancestor])
        if trained is None:
            raise StudyError(
                f"{folder.root}: trial {ancestor} has not been trained, so it has no lineage. "
                "`autoprune status` says what ended and what failed."
            )
        steps.append(_trial_step(trained))
    return steps


def _dense_step(folder: StudyFolder, spec: SearchConfig) -> dict[str, Any]:
    dense = DenseReference.read(folder)
    step: dict[str, Any] = {
        "trial": None,
        "metric": dense.metric,
        "loss": dense.loss,
        "cost": dense.cost.figures(),
    }
    if spec.task.weights is not None:
        return step | {"weights": spec.task.weights}
    return step | asdict(dense_training(spec))


def _trial_step(trained: TrainedTrial) -> dict[str, Any]:
    config, result = to_dict(trained.config), to_dict(trained.result)
    cost = trained.result.cost
    return {
        "trial": trained.config.number,
        "parent": trained.config.parent,
        "state": trained.result.state,
        "metric": trained.result.metric,
        "loss": trained.result.loss,
        "cost": None if cost is None else result["cost"] | {"flops": cost.flops},
        "epochs": trained.result.epochs,
        "schedule_epochs": trained.config.epochs,
        "epochs_lineage": trained.result.epochs_lineage,
        "seed": trained.config.seed,
        **{
            name: config[name]
            for name in ("optimizer", "lr_schedule", "batch_size_schedule", "distillation", "pruning")
        },
        "kept": result["kept"],
        "removed_blocks": result["removed_blocks"],
        "curve": list(trained.curve),
    }
