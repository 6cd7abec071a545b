"""One step of training where trials will run, before the dense network is trained: what fails there fails at once."""

from dataclasses import replace

import torch

from autoprune.config import SearchConfig
from autoprune.errors import AutopruneError, TaskError, describe_error, is_interrupt
from autoprune.study.data_file import read_data_report
from autoprune.study.folder import StudyFolder
from autoprune.study.lineage import dense_training
from autoprune.tasks.build import build_task
from autoprune.tasks.fingerprint import check_same_splits, random_state_kept
from autoprune.tasks.splits import SubsetSplit
from autoprune.tasks.task import Data, Task
from autoprune.tasks.working_folder import working_in
from autoprune.training.evaluation import evaluate
from autoprune.training.loop import Trainer
from autoprune.training.precision import Precision
from autoprune.trial import ScheduleConfig

N_EXAMPLES = 2
"""Examples of the step: batch norm can't normalise one."""


def take_first_step(spec: SearchConfig, task: Task, device: torch.device | str) -> None:
    """Train a new network for one step on two examples, and evaluate it on two; the test split is not read.

    The random generators are afterwards as before. The network is not compiled.

    Raises:
        Exception: Whatever the user's code raises.
    """
    train, validation = (
        SubsetSplit(split, torch.arange(min(N_EXAMPLES, len(split))))
        for split in (task.data.train, task.data.validation)
    )
    few = replace(task, data=Data(train, validation, task.data.test))
    training, precision = dense_training(spec), replace(Precision.of(spec.training), compile=False)
    with random_state_kept():
        trainer = Trainer(
            task.build_model(),
            few,
            optimizer=training.optimizer,
            lr_schedule=training.lr_schedule,
            batch_size_schedule=ScheduleConfig("constant", {"size": N_EXAMPLES}),
            epochs=1,
            seed=training.seed,
            device=device,
            precision=precision,
        )
        trainer.run_epoch()
        evaluate(trainer.model, validation, few, device, precision=precision)


def try_first_step(folder: StudyFolder, device: torch.device | str) -> str | None:
    """Build a study's task in this process, compare its splits with the study's, and take the first step.

    Returns:
        What went wrong, for the user; ``None`` if nothing did.
    """
    try:
        task = build_task(folder.config.task, folder.base_dir)
        with working_in(folder.base_dir):
            check_same_splits(task.data, read_data_report(folder.data).fingerprints, "in a worker process ")
            take_first_step(folder.config, task, device)
    except TaskError as error:
        return str(error)
    except BaseException as error:  # a user's SystemExit too
        if is_interrupt(error):
            raise
        return str(error) if isinstance(error, AutopruneError) else f"{describe_error(error)}."
    return None
