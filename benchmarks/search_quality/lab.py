"""What a method gets to work with: the space, the exact costs, and training in which every epoch is counted."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from torch import nn

from autoprune.config import load_config
from autoprune.engines.inline import run_inline
from autoprune.formats.saved_model import load_model
from autoprune.search.driver import Driver
from autoprune.search.prepare import reopen_study
from autoprune.search.samplers.cost_aware import CostAwareSettings
from autoprune.search.space import SearchSpace
from autoprune.study.dense_reference import DenseReference
from autoprune.study.folder import StudyFolder
from autoprune.study.front import Front
from autoprune.study.optuna_storage import open_study
from autoprune.study.pareto import non_dominated_mask
from autoprune.study.records import CONFIG, RESULT
from autoprune.study.seeds import derive_seed
from autoprune.training.evaluation import evaluate
from autoprune.trial import (
    DistillationConfig,
    EpochReport,
    OptimizerConfig,
    PruningConfig,
    ScheduleConfig,
    SensitivityJob,
    TrialConfig,
    TrialResult,
    result_from_dict,
    to_dict,
)
from autoprune.worker import Worker
from benchmarks.search_quality.settings import PLACES, Setting, merged

ENDLESS = 10**6
"""Trials of a study that the epochs end, not the number of its trials."""

OPTIMIZER = OptimizerConfig("sgd", {"momentum": 0.9, "weight_decay": 1e-4})
BATCH_SIZE = ScheduleConfig("constant", {"size": 64})


class BudgetSpentError(Exception):
    """The method has no epoch left to train."""


class CountingWorker(Worker):
    """The project's worker, with an account of the epochs and a row for every trial.

    A trial that would spend more than is left is shortened to what is left. A probe (a trial number below 0: no
    training, a look at the network's accuracy) costs the examples that go forward through the network.

    Args:
        budget: Epochs that may be spent.
        on_spent: Called when less than one is left.
    """

    def __init__(self, folder: StudyFolder, budget: float, dense: DenseReference) -> None:
        super().__init__(folder, PLACES.device)
        self.budget, self.spent = budget, 0.0
        self.on_spent: Callable[[], None] = lambda: None
        self.rows: list[dict[str, Any]] = []
        self._dense = dense

    @property
    def left(self) -> int:
        """Whole epochs that are left."""
        return int(self.budget - self.spent + 1e-9)

    def spend_examples(self, n_examples: int) -> None:
        """Enter examples that were read without training, as many epochs as that is of the training split."""
        self.spent += n_examples / len(self.task.data.train)

    def run(self, config: TrialConfig) -> Iterator[EpochReport | TrialResult]:
        """Run a trial or a probe and enter it into the account."""
        probe = isinstance(config.run, SensitivityJob)
        config = config if probe else replace(config, epochs=min(config.epochs, self.left))
        before, result = self.spent, None
        try:
            for event in super().run(config):
                if isinstance(event, EpochReport):
                    self.spent += 1
                elif not probe:
                    result = event
                yield event
        finally:
            if probe:
                self.spend_examples(self.meter.examples_per_point)
            self._enter(config, self.spent - before, result)
            if self.left < 1:
                self.on_spent()

    def _enter(self, config: TrialConfig, epochs: float, result: TrialResult | None) -> None:
        cost = result.cost if result else None
        state = result.state if result else "probe" if isinstance(config.run, SensitivityJob) else "stopped"
        schedules = {key: asdict(getattr(config, key)) for key in ("optimizer", "lr_schedule", "batch_size_schedule")}
        if config.distillation.weight:
            schedules["distillation"] = asdict(config.distillation)
        self.rows.append(
            {
                "number": to_dict(config)["number"],
                "state": state,
                "parent": config.parent,
                "epochs": epochs,
                "epochs_spent": self.spent,
                "macs_share": cost.macs / self._dense.cost.macs if cost else None,
                "params_share": cost.params / self._dense.cost.params if cost else None,
                "accuracy": result.metric if result else None,
                "widths": json.dumps(dict(result.kept) if result and result.kept else dict(config.pruning.widths)),
                "criterion": config.pruning.criterion,
                "schedules": json.dumps(schedules),
                "train_time_s": result.train_time_s if result else None,
                "error": result.error if result else None,
            }
        )


class Lab:
    """One run of one method.

    Args:
        dense_study: A study whose dense and plan stages are done; it is copied.
        root: An empty folder for this run.
        changes: What the method changes in the space file.

    Attributes:
        folder: The run's study folder, with the networks that it has trained.
        table: The exact cost of every candidate.
        groups: Group that is searched -> its dense width.
        max_ratio: Greatest pruning ratio of any group.
        trial_epochs: Epochs of a short trial, as the setting's space file has it.
        distillation: That of every training, where the space file does not have it searched.
        criterion: That of every cut, where the space file does not have it searched.
        reconstruct: Whether layers are fitted after every cut.
    """

    def __init__(
        self, setting: Setting, seed: int, dense_study: StudyFolder, root: Path, changes: Mapping[str, Any]
    ) -> None:
        self.setting, self.seed = setting, seed
        self.folder = StudyFolder(root)
        self.folder.create()
        shutil.copytree(dense_study.dense, self.folder.dense, dirs_exist_ok=True)
        for source, target in ((dense_study.plan, self.folder.plan), (dense_study.origin, self.folder.origin)):
            shutil.copy(source, target)
        space = setting.space(changes) | {"study": root.name}
        space["search"] = {"trials": ENDLESS, "epochs": setting.budget, **space.get("search", {}), "seed": seed}
        self.folder.space.write_text(yaml.safe_dump(space, sort_keys=False))
        session = reopen_study(self.folder)
        self.space, self.table, self.dense = session.space, session.table, session.dense
        self.worker = CountingWorker(self.folder, setting.budget, self.dense)
        self.task = self.worker.task
        self._trained: list[tuple[TrialConfig, TrialResult]] = []
        ratios = {
            dimension.name.removeprefix("neuron.ratio."): dimension
            for dimension in self.space.dimensions()
            if dimension.name.startswith("neuron.ratio.")
        }
        self.groups = {group.name: group.width for group in self.space.plan.groups if group.name in ratios}
        self.max_ratio = max(float(dimension.at(1.0)) for dimension in ratios.values())
        asked = self.space.spec.training.distillation
        fixed = isinstance(asked.weight, int | float) and isinstance(asked.temperature, int | float)
        self.distillation = DistillationConfig(asked.weight, asked.temperature) if fixed else DistillationConfig()
        neuron = self.space.spec.method("neuron")
        self.criterion = neuron.criterion if isinstance(neuron.criterion, str) else "l2"
        self.reconstruct = neuron.reconstruct
        self.trial_epochs = int(setting.space({})["training"]["epochs"])

    @property
    def left(self) -> int:
        """Whole epochs that may still be spent."""
        return self.worker.left

    def train(
        self,
        widths: Mapping[str, int],
        *,
        epochs: int,
        lr_schedule: ScheduleConfig,
        parent: int | None = None,
        optimizer: OptimizerConfig = OPTIMIZER,
        batch_size_schedule: ScheduleConfig = BATCH_SIZE,
    ) -> TrialResult:
        """Cut a network and train it.

        Args:
            widths: Group -> channels to keep.
            epochs: Fewer if fewer are left.
            parent: Trial to start from; ``None`` is the dense network.

        Raises:
            BudgetSpentError: If no epoch is left.
            RuntimeError: If the trial failed.
        """
        if self.left < 1:
            raise BudgetSpentError
        number = 1 + max((row["number"] for row in self.worker.rows if row["number"] >= 0), default=-1)
        config = TrialConfig(
            run=number,
            seed=derive_seed(self.seed, number, "trial"),
            epochs=epochs,
            optimizer=optimizer,
            lr_schedule=lr_schedule,
            batch_size_schedule=batch_size_schedule,
            pruning=PruningConfig(widths=dict(widths), criterion=self.criterion, reconstruct=self.reconstruct),
            parent=parent,
            distillation=self.distillation,
        )
        *_, result = self.worker.run(config)
        if not isinstance(result, TrialResult) or result.state != "finished":
            raise RuntimeError(f"trial {number} failed: {result}")
        self._trained.append((config, result))
        return result

    def narrowed(self, changes: Mapping[str, Any]) -> SearchSpace:
        """The lab's space with changes to its space file, such as fixed values in place of ranges."""
        path = self.folder.root / "narrowed.yaml"
        content = merged(yaml.safe_load(self.folder.space.read_text()), changes)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return SearchSpace(load_config(path), self.space.plan)

    def search(self, space: SearchSpace | None = None, *, sampler_settings: CostAwareSettings | None = None) -> None:
        """Run the project's own search until the epochs that its space allows it are spent, probes among them.

        It may start from the networks that :meth:`train` has trained before; their epochs are not among those it plans.

        Args:
            space: What it searches; ``None`` is all of the lab's space.
            sampler_settings: What the sampler ``cost_aware`` is tuned by, in place of its own numbers.
        """
        space = space or self.space
        worker, budget, spent = self.worker, self.worker.budget, "the epochs are spent"
        self._take_over(space)
        driver = Driver(self.folder, space, self.table, self.dense, sampler_settings=sampler_settings)
        driver.n_epochs = 0
        worker.budget = min(budget, worker.spent + (space.spec.search.epochs or budget))
        worker.on_spent = lambda: driver.stop(spent)
        run_inline(driver, worker)
        worker.budget, worker.on_spent = budget, lambda: None
        if driver.stopped_because != spent:
            raise RuntimeError(f"the search ended before the epochs were spent: {driver.stopped_because}")

    def _take_over(self, space: SearchSpace) -> None:
        """Enter the trials of :meth:`train` into the study, each under its number."""
        spec = space.spec
        study = open_study(self.folder, spec.search.storage, spec.study, spec.objectives, spec.directions)
        front = Front(spec.objectives, spec.metric)
        there = len(study.get_trials(deepcopy=False))
        for config, result in self._trained:
            if config.number < there:
                continue
            records = {CONFIG: json.dumps(to_dict(config)), RESULT: json.dumps(to_dict(result))}
            study.add_trial(optuna.trial.create_trial(values=front.values(result), user_attrs=records))

    def macs_share(self, widths: Mapping[str, int]) -> float:
        """MACs of a candidate, as a share of the dense network's."""
        return self.table.cost(widths).macs / self.table.cost({}).macs

    def model(self, number: int | None) -> nn.Module:
        """The network that a trial has trained; ``None`` is the dense one."""
        return load_model(self.folder.model(number), self.task.build_model)

    def result(self, number: int) -> TrialResult:
        """How a trial ended whose network is kept, as those of the front are."""
        return result_from_dict(self.folder.read_json(self.folder.record(number))["result"])

    def trials(self) -> pd.DataFrame:
        """The run so far as a table, a row a trial."""
        frame = pd.DataFrame(self.worker.rows).astype({"parent": "Int64", "error": "str"})
        finished = frame["state"] == "finished"
        values = frame[["accuracy", "macs_share"]].astype("float64").where(finished, axis=0)
        return frame.assign(on_front=non_dominated_mask(values, ["maximize", "minimize"]))

    def rows(self) -> pd.DataFrame:
        """The run as a table, a row a trial; the test split is read, once for each point of the front."""
        frame = self.trials()
        frame["accuracy_test"] = [
            self._test_accuracy(number) if on_front else float("nan")
            for number, on_front in zip(frame["number"], frame["on_front"], strict=True)
        ]
        return frame.assign(
            accuracy_dense=self.dense.metric,
            accuracy_dense_test=self._test_accuracy(None),
            budget=self.setting.budget,
        )

    def _test_accuracy(self, number: int | None) -> float:
        return evaluate(self.model(number), self.task.data.test, self.task, PLACES.device).metric
