"""One trial from beginning to end: load the parent, prune, retrain epoch by epoch, save, load again, measure."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.config import Ceiling, SearchConfig
from autoprune.cost import LATENCY_S, measure_cost
from autoprune.errors import UnwritableError, is_interrupt
from autoprune.formats.architecture import Architecture, apply_architecture, architecture_diff
from autoprune.formats.reload import load_judged, reference_inputs
from autoprune.formats.saved_model import load_model, save_model
from autoprune.formats.stored_outputs import stored_outputs
from autoprune.network.call import Inputs
from autoprune.pruning.channels.ranking import kept_scores
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.sensitivity.measure import SensitivityMeter
from autoprune.study.data_file import read_data_report
from autoprune.study.dense_reference import DenseReference
from autoprune.study.folder import StudyFolder
from autoprune.study.plan_file import read_plan_part
from autoprune.tasks.build import build_task
from autoprune.tasks.fingerprint import check_same_splits
from autoprune.tasks.task import Split, Task
from autoprune.tasks.working_folder import working_in
from autoprune.training.batch_norm import recalibrate_batch_norm
from autoprune.training.checkpoint import load_checkpoint, save_checkpoint
from autoprune.training.distillation import Distillation
from autoprune.training.evaluation import Evaluation, evaluate
from autoprune.training.loop import Trainer
from autoprune.training.memory import free_device_memory
from autoprune.training.precision import Precision
from autoprune.trial import (
    Cost,
    EpochReport,
    Replicate,
    SensitivityJob,
    TrialConfig,
    TrialResult,
    report_from_dict,
    result_from_dict,
    to_dict,
)
from autoprune.worker.limits import Limits
from autoprune.worker.pruner import TrialPruner
from autoprune.worker.task_meter import task_meter

N_SENSITIVITY_EXAMPLES = 512
"""Training examples that a sensitivity job evaluates on at most; half as many others recalibrate its batch norm."""

SIDE_LATENCY_S = 0.05
"""How long a latency is measured that is neither an objective nor under a ceiling."""


class Worker:
    """Runs trials of one study; made once a process, so that the data is loaded once.

    Args:
        folder: The study's folder, with its dense and plan stages done.
        device: Where networks are trained and measured.
        config: The study's, where it has been read before.
        task: The study's, where it has been built before: data are then not read twice in one process.
    """

    def __init__(
        self,
        folder: StudyFolder,
        device: torch.device | str = "cpu",
        *,
        config: SearchConfig | None = None,
        task: Task | None = None,
    ) -> None:
        self.folder = folder
        self.device = torch.device(device)
        self.spec = config or folder.config
        folder.checkpoint_store.open()  # what keeps it from being opened is no trial's fault
        self.task = task or self._build_task()
        self.plan = read_plan_part(folder.plan, "plan", PruningPlan.from_dict)
        self.dense = DenseReference.read(folder)
        self.searches_latency = "latency_ms" in (*self.spec.objectives, *self.spec.constraints.ceilings)
        self.precision = Precision.of(self.spec.training)
        self.limits = Limits(self.spec.search.trial_timeout, self.spec.resources.memory_per_trial_gib)

    def _build_task(self) -> Task:
        """Build the task in this process; its splits must be those that the study began with."""
        task = build_task(self.spec.task, self.folder.base_dir)
        if self.folder.data.exists():
            with working_in(self.folder.base_dir):
                check_same_splits(task.data, read_data_report(self.folder.data).fingerprints, "in a worker process ")
        return task

    def run(self, config: TrialConfig) -> Iterator[EpochReport | TrialResult]:
        """Run a trial, from its last epoch checkpoint if there is one.

        Yields:
            An EpochReport after every epoch and a TrialResult at the end. A trial that goes on from a checkpoint begins
            with the report of the epoch before it, which may not have been heard. Whatever goes wrong in between, in
            the user's code too, and a limit of time or memory that is reached, ends the trial as ``"failed"`` with its
            cause. When the TrialResult comes, or the events are closed before, nothing of the trial is left in memory.

        Raises:
            UnwritableError: If the study's folder or the place of its checkpoints can't be written; the trial has not
                ended, and goes on when it can.
        """
        last: EpochReport | None = None
        result: TrialResult | None = None
        try:
            with closing(self.limits.around(self._events(config))) as events:
                while result is None:
                    try:
                        event = next(events)
                    except UnwritableError:
                        raise
                    except BaseException as error:  # a user's SystemExit too
                        if is_interrupt(error):
                            raise
                        event = self._failure(config, last, error)
                    if isinstance(event, TrialResult):
                        result = event
                    else:
                        last = event
                        yield event
        finally:
            self.precision.release_compiled()
            free_device_memory(self.device)
        if result is not None:
            yield result

    def _failure(self, config: TrialConfig, last: EpochReport | None, error: BaseException) -> TrialResult:
        return TrialResult(
            config.run,
            "failed",
            epochs=last.epoch if last else 0,
            train_time_s=last.train_time_s if last else 0.0,
            seed=config.seed,
            error=self.limits.describe(error),
            device_batch=last.device_batch if last else None,
        )

    def _events(self, config: TrialConfig) -> Iterator[EpochReport | TrialResult]:
        if isinstance(config.run, SensitivityJob):
            yield self._sensitivity(config)
        else:
            yield from _Run(self, config).steps()

    @cached_property
    def reference_inputs(self) -> Inputs:
        """The inputs that every network is compared with its file on."""
        return reference_inputs(self.task)

    @cached_property
    def meter(self) -> SensitivityMeter:
        """Measures the dense network with a group cut; made at the first sensitivity job."""
        return task_meter(
            load_model(self.folder.dense, self.task.build_model),
            self.plan,
            self.task,
            self.spec.metric,
            self.device,
            n_examples=min(N_SENSITIVITY_EXAMPLES, max(1, len(self.task.data.train) // 4)),
            n_recalibration=min(N_SENSITIVITY_EXAMPLES // 2, max(1, len(self.task.data.train) // 8)),
            seed=self.spec.search.seed,
        )

    def _sensitivity(self, config: TrialConfig) -> TrialResult:
        widths = dict(config.pruning.widths)
        if widths:
            ((group, width),) = widths.items()
            score = self.meter.measure_point(group, width).score
        else:
            score = self.meter.measure_dense_score()
        metric = self.spec.metric.value(score)
        return TrialResult(config.run, "finished", metric=metric, kept=widths, seed=config.seed)


class _Run:
    """The state of one running trial."""

    def __init__(self, worker: Worker, config: TrialConfig) -> None:
        self.worker, self.config = worker, config
        self.is_replicate = isinstance(config.run, Replicate)
        self.folder, self.task, self.plan = worker.folder, worker.task, worker.plan
        self.cost: Cost | None = None
        self.train_time_s = 0.0
        self.evaluation_batch: int | None = None
        parent_widths = self.plan.group_widths
        self.lineage = config.epochs
        parent_run = config.parent_run
        if parent_run is not None:
            self.folder.checkpoint_store.fetch_model(parent_run)
            parent = result_from_dict(self.folder.read_json(self.folder.record(parent_run))["result"])
            parent_widths = dict(parent.kept)
            self.lineage += parent.epochs_lineage
        self.pruner = TrialPruner(
            self.task,
            self.plan,
            config.pruning,
            parent_widths,
            seed=config.seed,
            device=worker.device,
            precision=worker.precision,
        )

    def steps(self) -> Iterator[EpochReport | TrialResult]:
        self.folder.checkpoint_store.fetch_training(self.config.run)
        checkpoint = load_checkpoint(self.folder.training_checkpoint(self.config.run))
        if checkpoint is None or checkpoint.get("config") != to_dict(self.config):  # damaged, or another trial's
            model = load_model(self.folder.model(self.config.parent_run), self.task.build_model).to(self.worker.device)
            ceilings = {} if self.is_replicate else self.worker.spec.constraints.ceilings
            if ceilings or not self.pruner.is_gradual:
                pruned = self.pruner.prune_at_once(model)
                broken = self._broken_ceiling(pruned, ceilings)
                if broken is not None:
                    yield TrialResult(self.config.run, "infeasible", seed=self.config.seed, error=broken)
                    return
            if self.pruner.is_gradual:
                self.pruner.begin_gradually(model)
            else:
                model = pruned
            trainer = self._trainer(model)
        else:
            trainer = self._restored(checkpoint)
            yield report_from_dict(checkpoint["report"])
        while trainer.epoch < self.config.epochs:
            yield self._epoch(trainer)
        if self.pruner.is_gradual:
            self._prune_gradually(trainer, 1.0)  # what came due within the last step
        yield self._finish(trainer)

    def _trainer(self, model: nn.Module) -> Trainer:
        config, training = self.config, self.worker.spec.training
        trainer = Trainer(
            model,
            self.task,
            optimizer=config.optimizer,
            lr_schedule=config.lr_schedule,
            batch_size_schedule=config.batch_size_schedule,
            epochs=config.epochs,
            seed=config.seed,
            device=self.worker.device,
            max_micro_batch_size=training.max_device_batch,
            reference_batch_size=training.reference_batch_size,
            precision=self.worker.precision,
            distillation=self._distillation(),
            before_step=(lambda progress: self._prune_gradually(trainer, progress)) if self.pruner.is_gradual else None,
            after_step=self.pruner.after_step,
        )
        return trainer

    def _distillation(self) -> Distillation | None:
        if not self.config.distillation.weight:
            return None
        dense = load_model(self.folder.dense, self.task.build_model).to(self.worker.device)
        return Distillation(self.worker.precision.to_training_layout(dense), self.config.distillation)

    def _prune_gradually(self, trainer: Trainer, progress: float) -> None:
        if self.pruner.prune_due(trainer, progress):
            self.cost = None

    def _epoch(self, trainer: Trainer) -> EpochReport:
        metrics = trainer.run_epoch()
        self.train_time_s += metrics.train_time_s
        validation = self._evaluate(trainer.model, self.task.data.validation)
        validation.check_finite("validation", f"after epoch {trainer.epoch}")
        trainer.record_validation(validation.loss)
        if self.worker.spec.search.stop_early and self.cost is None:
            self.cost = self._measure_unsaved(trainer.model, latency=False)
        report = EpochReport(
            run=self.config.run,
            epoch=trainer.epoch,
            metric=validation.metric,
            loss=validation.loss,
            train_loss=metrics.train_loss,
            lr=metrics.lr,
            batch_size=metrics.batch_size,
            train_time_s=self.train_time_s,
            cost=self.cost,
            device_batch=trainer.micro_batch_size,
            **self.pruner.outcome(),
        )
        self._save_checkpoint(trainer, report)
        return report

    def _evaluate(self, model: nn.Module, split: Split, *, with_error: bool = False) -> Evaluation:
        worker, batch = self.worker, self.evaluation_batch
        evaluation = evaluate(model, split, self.task, worker.device, batch, worker.precision, with_error=with_error)
        self.evaluation_batch = evaluation.batch_size
        return evaluation

    def _finish(self, trainer: Trainer) -> TrialResult:
        model, device, precision = trainer.model, self.worker.device, self.worker.precision
        n_examples = self.worker.spec.training.recalibration_examples
        if n_examples:
            recalibrate_batch_norm(
                model,
                self.task.data.train,
                device,
                n_examples=n_examples,
                seed=self.config.seed,
                precision=precision,
                keep_frozen=self.task.frozen == "keep",
            )
        precision.to_storage_layout(model).to("cpu")
        target = self.folder.model(self.config.run)
        architecture = self._architecture(model)
        with self.folder.writing():
            size_bytes = save_model(target, model, architecture)
        model, outputs = load_judged(target, model, self.task.build_model, self.worker.reference_inputs)
        precision.to_training_layout(model.to(device))
        validation = self._evaluate(model, self.task.data.validation, with_error=not self.is_replicate)
        validation.check_finite("validation", "after the last epoch")
        test = self._evaluate(model, self.task.data.test) if self.config.with_test else None
        if test is not None:
            test.check_finite("test", "after the last epoch")
        precision.to_storage_layout(model)
        cost = measure_cost(
            model,
            self.task.example_inputs(),
            size_bytes,
            device,
            latency=not self.is_replicate,
            threads=self.worker.dense.latency.threads,
            max_seconds=LATENCY_S if self.worker.searches_latency else SIDE_LATENCY_S,
        )
        result = TrialResult(
            run=self.config.run,
            state="finished",
            metric=validation.metric,
            metric_se=validation.standard_error,
            loss=validation.loss,
            cost=cost,
            left_dense=self.pruner.left_dense(model),
            epochs=self.config.epochs,
            epochs_lineage=self.lineage,
            train_time_s=self.train_time_s,
            seed=self.config.seed,
            metric_test=test.metric if test else None,
            device_batch=trainer.micro_batch_size,
            **self.pruner.outcome(),
        )
        record: dict[str, Any] = {"config": to_dict(self.config), "result": to_dict(result)}
        if not self.is_replicate:  # nothing is cut from a replicate
            record["scores"] = kept_scores(model, self.plan)
            record["outputs"] = stored_outputs(self.worker.reference_inputs, outputs)
        self.folder.write_json(self.folder.record(self.config.run), record)
        self.folder.checkpoint_store.save_model(self.config.run)
        return result

    def _broken_ceiling(self, pruned: nn.Module, ceilings: Mapping[str, Ceiling]) -> str | None:
        """The ceiling that the trial's final network breaks, measured on that network before it is trained."""
        if not ceilings:
            return None
        cost = self._measure_unsaved(pruned, latency="latency_ms" in ceilings)
        for name, ceiling in ceilings.items():
            limit, value = ceiling.limit(self.worker.dense.value(name)), getattr(cost, name)
            if value > limit:
                return f"{name} {value:,.6g} is over the ceiling {limit:,.6g}"
        return None

    def _measure_unsaved(self, model: nn.Module, *, latency: bool) -> Cost:
        with tempfile.TemporaryDirectory() as scratch:
            size_bytes = save_model(Path(scratch), model, self._architecture(model))
        return measure_cost(
            model,
            self.task.example_inputs(),
            size_bytes,
            self.worker.device,
            latency=latency,
            threads=self.worker.dense.latency.threads,
        )

    def _architecture(self, model: nn.Module) -> Architecture:
        return architecture_diff(self.task.build_model(), model, self.worker.spec.task.model)

    def _save_checkpoint(self, trainer: Trainer, report: EpochReport) -> None:
        state = {
            "config": to_dict(self.config),
            "trainer": trainer.state_dict(),
            "report": to_dict(report),
            "architecture": self._architecture(trainer.model).to_dict(),
            "train_time_s": self.train_time_s,
        } | self.pruner.state_dict()
        with self.folder.writing():
            save_checkpoint(self.folder.training_checkpoint(self.config.run), state)
        self.folder.checkpoint_store.save_training(self.config.run)

    def _restored(self, checkpoint: Mapping[str, Any]) -> Trainer:
        architecture = Architecture.from_dict(checkpoint["architecture"])
        trainer = self._trainer(apply_architecture(self.task.build_model(), architecture))
        trainer.load_state_dict(checkpoint["trainer"])
        self.pruner.load_state_dict(trainer.model, checkpoint)
        self.train_time_s = checkpoint["train_time_s"]
        return trainer
