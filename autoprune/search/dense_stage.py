"""The dense stage: train the dense network where no weights are given, measure it and keep it."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from autoprune.config import SearchConfig
from autoprune.cost import measure_cost, measure_latency
from autoprune.errors import SavedModelError, TaskError
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.reload import load_judged, reference_inputs
from autoprune.formats.saved_model import save_model
from autoprune.search.callbacks import Callback, MeasureDense, TrainDense
from autoprune.search.validate import ValidatedSpace
from autoprune.study.dense_reference import DenseReference
from autoprune.study.epochs import DENSE, EpochLog
from autoprune.study.folder import StudyFolder
from autoprune.study.lineage import dense_training
from autoprune.tasks.task import Task
from autoprune.training.checkpoint import load_checkpoint, save_checkpoint
from autoprune.training.evaluation import evaluate
from autoprune.training.loop import Trainer
from autoprune.training.memory import free_device_memory
from autoprune.training.precision import Precision


def make_dense_reference(
    checked: ValidatedSpace,
    folder: StudyFolder,
    device: torch.device,
    threads: int,
    callback: Callback,
) -> nn.Module:
    """Train the dense network unless it is trained already, keep it, and measure what was kept.

    Returns:
        The network, as loaded from its file.

    Raises:
        TaskError: If the network loaded from its file is not the one that was trained.
    """
    spec, task, model = checked.spec, checked.task, checked.model
    epochs = 0
    if not checked.trained:
        epochs = spec.dense.epochs
        for epoch, metric in _train_dense(spec, task, model, folder, device):
            callback.on_stage(TrainDense(epoch, epochs, metric, spec.metric))
    callback.on_stage(MeasureDense())
    architecture = architecture_diff(model, model, spec.task.model)
    with folder.writing():
        size_bytes = save_model(folder.dense, model.to("cpu"), architecture)
    try:
        model, _ = load_judged(folder.dense, model, task.build_model, reference_inputs(task))
    except SavedModelError as error:
        raise TaskError(f"task.model: loading the dense network again failed: {error}") from error
    model.to(device)
    precision = Precision.of(spec.training)
    validation = evaluate(model, task.data.validation, task, device, precision=precision, with_error=True)
    validation.check_finite("validation", "for the dense network")
    latency = measure_latency(model, task.example_inputs(), device, threads)
    cost = replace(
        measure_cost(model, task.example_inputs(), size_bytes, device, latency=False), latency_ms=latency.latency_ms
    )
    reference = DenseReference(
        validation.metric, validation.loss, cost, latency, epochs, metric_se=validation.standard_error
    )
    reference.write(folder)
    (folder.dense / "training").unlink(missing_ok=True)
    model.to("cpu")
    free_device_memory(device)
    return model


def _train_dense(
    spec: SearchConfig, task: Task, model: nn.Module, folder: StudyFolder, device: torch.device
) -> Iterable[tuple[int, float]]:
    """Train from the last epoch's checkpoint if there is one; yields (epochs done, metric on validation)."""
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
        validation.check_finite("validation", f"after epoch {trainer.epoch} of the dense network")
        trainer.record_validation(validation.loss)
        train_time_s += metrics.train_time_s
        log.append_dense(
            trainer.epoch,
            validation.metric,
            {
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
        yield trainer.epoch, validation.metric
    precision.to_storage_layout(model)
    precision.release_compiled()
