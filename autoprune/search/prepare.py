"""From a space file to a study that is ready for trials: checks, then the dense stage, then the plan stage."""

import os
import platform
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from autoprune.config import SearchConfig, SpaceFile, differences, load_config, located, read_space_file, valid_task
from autoprune.config.paths import expand
from autoprune.cost import CostTable, build_table, measure_cost, measure_latency
from autoprune.errors import AutopruneError, ConfigError, StudyError, TaskError, describe_error
from autoprune.files import replacing
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.saved_model import load_model, save_model
from autoprune.pruning.channels.ranking import kept_scores
from autoprune.pruning.methods import PRUNING_METHODS
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.planner import make_plan, rank_blocks, rank_blocks_by_angle
from autoprune.search.callbacks import SILENT, Callback, MeasureDense, RankBlocks, TrainDense
from autoprune.search.constraints import CostConstraints
from autoprune.search.resources import WorkerResources
from autoprune.search.samplers.registry import load_sampler
from autoprune.search.space import SearchSpace
from autoprune.study.dense_reference import DenseReference
from autoprune.study.epochs import DENSE, EpochLog
from autoprune.study.folder import SCHEMA, StudyFolder
from autoprune.study.lineage import dense_training
from autoprune.study.plan_file import read_plan_part
from autoprune.tasks.build import build_task
from autoprune.tasks.check import check_task
from autoprune.tasks.splits import SubsetSplit
from autoprune.tasks.task import Task
from autoprune.tasks.weights import load_weights
from autoprune.training.checkpoint import load_checkpoint, save_checkpoint
from autoprune.training.evaluation import evaluate
from autoprune.training.loop import Trainer
from autoprune.training.memory import find_executable_batch_size, free_device_memory
from autoprune.training.precision import Precision

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


@dataclass(frozen=True)
class ValidatedSpace:
    """What a space file names, tried and found to fit together.

    Attributes:
        model: The dense network, with the given weights or untrained.
        plan: What of it can be pruned; the blocks are ranked if it is that of a study.
        trained: Whether the model has trained weights.
    """

    file: SpaceFile
    task: Task
    model: nn.Module
    plan: PruningPlan
    table: CostTable
    trained: bool

    @property
    def spec(self) -> SearchConfig:
        """What the space file asks for."""
        return self.file.config


def validate_space(file: SpaceFile, plan_file: Path | None = None, dense: Path | None = None) -> ValidatedSpace:
    """Try everything that a space file names, without writing anything.

    Args:
        plan_file: Plan of the study that was started from this file, if one was: saves finding it again.
        dense: Folder of a trained dense network to take if the file names no weights.

    Raises:
        ConfigError: If the file names layers that can't be pruned.
        TaskError: If what it names does not fit together.
        StudyError: If no network of the space is under its ceilings, or the study's plan is damaged.
    """
    with in_file(file.path):
        return _validated(file, plan_file, dense)


def _validated(file: SpaceFile, plan_file: Path | None, dense: Path | None) -> ValidatedSpace:
    spec, base_dir = file.config, file.base_dir
    task = build_task(spec.task, base_dir)
    torch.manual_seed(dense_training(spec).seed)
    model = task.build_model()
    check_task(task, model)
    if spec.search.sampler != "auto":
        load_sampler(spec.search.sampler, base_dir)
    if spec.task.weights is not None:
        load_weights(model, base_dir / expand(spec.task.weights))
    elif dense is not None:
        model = load_model(dense, task.build_model)
    if plan_file is not None and plan_file.exists():
        plan, table = _read_plan(plan_file)
        read_plan_part(plan_file, "scores", dict)  # the sampler needs them
    else:
        neuron = spec.method("neuron")
        plan = make_plan(model, task.example_inputs(2), hidden_sizes=neuron is not None and neuron.hidden_sizes)
        table = build_table(
            model,
            task.example_inputs(),
            widths=plan.group_widths,
            shrink=plan.shrink,
            products=plan.products,
            blocks=plan.block_names,
        )
    CostConstraints(spec, table).check_reachable(SearchSpace(spec, plan))
    return ValidatedSpace(file, task, model, plan, table, trained=spec.task.weights is not None or dense is not None)


def read_space(space_file: Path) -> SpaceFile:
    """Read a space file; its mistakes are told together with those of what its `task` section names.

    Raises:
        ConfigError: If there are any mistakes in the file.
    """
    try:
        return read_space_file(space_file)
    except ConfigError as error:
        settings = valid_task(space_file)
        if settings is None:
            raise
        try:
            build_task(settings, space_file.absolute().parent)
        except TaskError as more:
            raise ConfigError([*error.problems, *located(space_file, str(more)).splitlines()]) from None
        raise


@contextmanager
def in_file(space_file: Path) -> Iterator[None]:
    """Tell mistakes in what a space file asks for with the file and the line."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError([located(space_file, problem) for problem in error.problems]) from error
    except (TaskError, StudyError) as error:
        raise type(error)(located(space_file, str(error))) from error


def check_prunable(checked: ValidatedSpace) -> None:
    """Raise ConfigError if none of the space file's methods has anything to prune in this network."""
    methods = [block.method for block in checked.spec.pruning]
    if not any(PRUNING_METHODS[method].prunable(checked.plan) for method in methods):
        raise ConfigError(
            [f"pruning: nothing of this network can be pruned by {' or '.join(methods)}. `autoprune plan` says why."]
        )


@contextmanager
def in_stage(what: str, way_out: str) -> Iterator[None]:
    """Tell an error of the user's code or data with the stage that it stopped; raises TaskError."""
    try:
        yield
    except (StudyError, TaskError):
        raise
    except Exception as error:
        told = str(error) if isinstance(error, AutopruneError) else describe_error(error)
        raise TaskError(f"{what} failed: {told.rstrip('.')}. {way_out}") from error


def check_same_study(folder: StudyFolder, file: SpaceFile) -> None:
    """Refuse to go on with a study that was started from another space file; raises StudyError with the differences."""
    folder.check_schema()
    if not folder.space.exists() or folder.space.read_bytes() == file.content:
        return
    changed = differences(load_config(folder.space), file.config)
    if changed:
        raise StudyError(
            f"{folder.root} was started from a different space file ({'; '.join(changed)}). "
            "Give the study another name, or restore the file."
        )


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
    check_same_study(folder, checked.file)
    folder.create()
    if not folder.origin.exists():
        base_dir = os.path.relpath(checked.file.base_dir, folder.root)
        folder.write_json(folder.origin, {"schema": SCHEMA, "base_dir": base_dir, "versions": versions()})
    space = checked.file.content
    if not folder.space.exists() or folder.space.read_bytes() != space:  # in what a study may change, if at all
        with folder.writing(), replacing(folder.space) as handle:
            handle.write(space)
    if not folder.reference.exists():
        with in_stage("training and measuring the dense network", "Its settings are under `dense` in the space file."):
            _dense_stage(checked, folder, places.device, places.threads, callback)
    if not folder.plan.exists():
        if spec.method("layer") is not None:
            callback.on_stage(RankBlocks())
        with in_stage("ranking the blocks", "Leave the method `layer` out, or mend the model."):
            model = load_model(folder.dense, task.build_model)
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
    plan, table = _read_plan(folder.plan)
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


def _read_plan(path: Path) -> tuple[PruningPlan, CostTable]:
    return read_plan_part(path, "plan", PruningPlan.from_dict), read_plan_part(path, "table", CostTable.from_dict)


def _dense_stage(
    checked: ValidatedSpace,
    folder: StudyFolder,
    device: torch.device,
    threads: int,
    callback: Callback,
) -> None:
    """Train the dense network unless it is trained already, then measure it and keep it."""
    spec, task, model = checked.spec, checked.task, checked.model
    epochs = 0
    if not checked.trained:
        epochs = spec.dense.epochs
        for epoch, accuracy in _train_dense(spec, task, model, folder, device):
            callback.on_stage(TrainDense(epoch, epochs, accuracy))
    callback.on_stage(MeasureDense())
    model.to(device)
    validation = evaluate(model, task.data.validation, task, device, precision=Precision.of(spec.training))
    architecture = architecture_diff(model, model, spec.task.model)
    with folder.writing():
        size_bytes = save_model(folder.dense, model.to("cpu"), architecture)
    model.to(device)
    latency = measure_latency(model, task.example_inputs(), device, threads)
    cost = replace(
        measure_cost(model, task.example_inputs(), size_bytes, device, latency=False), latency_ms=latency.latency_ms
    )
    DenseReference(validation.accuracy, validation.loss, cost, latency, epochs).write(folder)
    (folder.dense / "training").unlink(missing_ok=True)
    model.to("cpu")
    free_device_memory(device)


def _train_dense(
    spec: SearchConfig, task: Task, model: nn.Module, folder: StudyFolder, device: torch.device
) -> Iterable[tuple[int, float]]:
    """Train from the last epoch's checkpoint if there is one; yields (epochs done, validation accuracy)."""
    training, precision = dense_training(spec), Precision.of(spec.training)
    trainer = Trainer(
        model,
        task,
        optimizer=training.optimizer,
        lr_schedule=training.lr_schedule,
        batch_size_schedule=training.batch_size_schedule,
        epochs=training.epochs,
        seed=training.seed,
        device=device,
        max_micro_batch_size=spec.training.max_device_batch,
        precision=precision,
    )
    path = folder.dense / "training"
    state = load_checkpoint(path)
    if state is not None:
        trainer.load_state_dict(state)
    log = EpochLog(folder)
    train_time_s = log.train_time_s(DENSE)
    while trainer.epoch < training.epochs:
        metrics = trainer.run_epoch()
        validation = evaluate(model, task.data.validation, task, device, precision=precision)
        trainer.record_validation(validation.loss)
        train_time_s += metrics.train_time_s
        log.append_dense(
            trainer.epoch,
            {
                "accuracy": validation.accuracy,
                "loss": validation.loss,
                "train_loss": metrics.train_loss,
                "lr": metrics.lr,
                "batch_size": metrics.batch_size,
                "micro_batch_size": trainer.micro_batch_size,
                "train_time_s": train_time_s,
            },
        )
        with folder.writing():
            save_checkpoint(path, trainer.state_dict())
        yield trainer.epoch, validation.accuracy
    precision.to_storage_layout(model)
    precision.release_compiled()
