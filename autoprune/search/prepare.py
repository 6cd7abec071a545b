"""From a validated space to a study that is ready for trials: the dense stage, then the plan stage."""

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from autoprune.config import SearchConfig
from autoprune.cost import CostTable
from autoprune.errors import AutopruneError, StudyError, TaskError, describe_error, is_interrupt
from autoprune.files import replacing
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.saved_model import load_model, save_model
from autoprune.pruning.channels.ranking import kept_scores
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.planner import rank_blocks, rank_blocks_by_angle
from autoprune.search.callbacks import SILENT, Callback, RankBlocks
from autoprune.search.dense_stage import make_dense_reference
from autoprune.search.resources import WorkerResources
from autoprune.search.space import SearchSpace
from autoprune.search.validate import ValidatedSpace, check_same_study, read_plan
from autoprune.study.dense_reference import DenseReference
from autoprune.study.exit_note import ExitNote
from autoprune.study.folder import SCHEMA, StudyFolder
from autoprune.tasks.build import build_task
from autoprune.tasks.splits import SubsetSplit
from autoprune.tasks.task import Task
from autoprune.tasks.working_folder import working_in
from autoprune.training.evaluation import evaluate
from autoprune.training.memory import find_executable_batch_size, free_device_memory

N_BLOCK_EXAMPLES = 1024
"""Training examples that a block's importance is measured on."""
BLOCK_BATCH = 128
"""How many of them go through the network at once where angles are measured."""


@dataclass(frozen=True)
class PreparedStudy:
    """A study that is ready for trials."""

    spec: SearchConfig
    folder: StudyFolder
    task: Task
    space: SearchSpace
    table: CostTable
    dense: DenseReference


@contextmanager
def in_stage(what: str, way_out: str) -> Iterator[None]:
    """Tell an error of the user's code or data with the stage that it stopped; raises TaskError."""
    try:
        yield
    except (StudyError, TaskError):
        raise
    except BaseException as error:  # a user's SystemExit too
        if is_interrupt(error):
            raise
        told = str(error) if isinstance(error, AutopruneError) else describe_error(error)
        raise TaskError(f"{what} failed: {told.rstrip('.')}. {way_out}") from error


def begin_study(checked: ValidatedSpace, folder: StudyFolder) -> None:
    """Write down what a study is of, as far as it is not there: all that a worker process needs to build its task.

    Raises:
        StudyError: If the study was begun with another space file, or can't be written.
    """
    check_same_study(folder, checked.file)
    folder.create()
    if not folder.origin.exists():
        base_dir = os.path.relpath(checked.file.base_dir, folder.root)
        folder.write_json(folder.origin, {"schema": SCHEMA, "base_dir": base_dir, "versions": versions()})
    space = checked.file.content
    if not folder.space.exists() or folder.space.read_bytes() != space:  # in what a study may change, if at all
        with folder.writing(), replacing(folder.space) as handle:
            handle.write(space)


def prepare_study(
    checked: ValidatedSpace,
    folder: StudyFolder,
    places: WorkerResources,
    callback: Callback = SILENT,
) -> PreparedStudy:
    """Make a study ready for trials, or ready again; what is there already is kept.

    The caller holds the folder's lock.

    Args:
        checked: The space file, with the study's plan if it has one.
        places: Where to train, and with how many threads every latency of the study is measured.
        callback: Told what is being done.

    Raises:
        AutopruneError: If the space file, the task or the folder can't be used.
    """
    spec, task, plan = checked.spec, checked.task, checked.plan
    begin_study(checked, folder)
    model: nn.Module | None = None
    if not folder.reference.exists():
        with (
            in_stage("training and measuring the dense network", "Its settings are under `dense` in the space file."),
            working_in(checked.file.base_dir),
            ExitNote(folder.logs).around("dense network"),
        ):
            model = make_dense_reference(checked, folder, places.device, places.threads, callback)
    if not folder.plan.exists():
        if spec.method("layer") is not None:
            callback.on_stage(RankBlocks())
        with (
            in_stage("loading the dense network again", "Mend the model, then start the study anew."),
            working_in(checked.file.base_dir),
        ):
            model = load_model(folder.dense, task.build_model) if model is None else model
        with (
            in_stage("ranking the blocks", "Leave the method `layer` out, or mend the model."),
            working_in(checked.file.base_dir),
            ExitNote(folder.logs).around("ranking of the blocks"),
        ):
            plan = rank_plan(spec, task, plan, model, places.device)
        scores = kept_scores(model, plan)
        folder.write_json(folder.plan, {"plan": plan.to_dict(), "table": checked.table.to_dict(), "scores": scores})
        model.to("cpu")
        free_device_memory(places.device)
    dense = DenseReference.read(folder)
    return PreparedStudy(spec, folder, task, SearchSpace(spec, plan), checked.table, dense)


def reopen_study(folder: StudyFolder) -> PreparedStudy:
    """Open a study whose dense and plan stages are done; raises StudyError if they are not."""
    spec = folder.config
    plan, table = read_plan(folder.plan)
    return PreparedStudy(
        spec=spec,
        folder=folder,
        task=build_task(spec.task, folder.base_dir),
        space=SearchSpace(spec, plan),
        table=table,
        dense=DenseReference.read(folder),
    )


def rank_plan(spec: SearchConfig, task: Task, plan: PruningPlan, model: nn.Module, device: torch.device) -> PruningPlan:
    """Order the plan's blocks by importance on training examples, if the space file removes blocks."""
    layer = spec.method("layer")
    if layer is None:
        return plan
    train = task.data.train
    first = SubsetSplit(train, torch.arange(min(N_BLOCK_EXAMPLES, len(train))))
    model = model.to(device)
    if layer.importance == "angular":

        def ranked(n_at_once: int) -> PruningPlan:
            parts = torch.split(torch.arange(len(first)), n_at_once)
            return rank_blocks_by_angle(plan, model, (first.batch(part)[0] for part in parts))

        return find_executable_batch_size(ranked, BLOCK_BATCH, device, "ranking blocks")[0]
    return rank_blocks(plan, model, lambda candidate: evaluate(candidate, first, task, device).loss)


def saved_size(model: nn.Module, spec: SearchConfig) -> int:
    """Bytes of the file that the network would be saved in."""
    with tempfile.TemporaryDirectory() as scratch:
        return save_model(Path(scratch), model, architecture_diff(model, model, spec.task.model))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a trial's outcome."""
    names = ("autoprune", "torch", "optuna", "ray", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
