"""A study that begins with another one's trials: as data for its sampler, and with their networks as parents.

They become trials of this study, numbered before its own, so that the sampler, the front, lineage and export take them
as they take any. Nothing of the other study is changed, and it may be searched meanwhile.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.samplers import NSGAIIISampler, NSGAIISampler
from optuna.trial import TrialState, create_trial

from autoprune.config import SearchConfig, differences
from autoprune.config.paths import expand
from autoprune.cost import measure_cost
from autoprune.errors import StudyError
from autoprune.formats.architecture import named_tensors
from autoprune.formats.saved_model import load_model
from autoprune.pruning.apply import prune
from autoprune.search.prepare import PreparedStudy
from autoprune.search.resources import WorkerResources
from autoprune.search.samplers.registry import ladder_steps, start_name, wants_sensitivity
from autoprune.search.sensitivity_jobs import SensitivityJobs
from autoprune.search.space import SearchSpace, locate
from autoprune.search.validate import ValidatedSpace
from autoprune.study.folder import StudyFolder
from autoprune.study.front import Front
from autoprune.study.optuna_storage import open_study
from autoprune.study.reader import StudyReader, StudyTrial
from autoprune.study.records import (
    CONFIG,
    CONSTRAINT,
    CURVE,
    LADDER,
    ORIGIN,
    PARENT,
    RESULT,
    SOURCE,
    source_of,
)
from autoprune.tasks.working_folder import working_in
from autoprune.trial import Cost, PruningConfig, TrialResult, to_dict

WHERE = "search.warm_start"

SAME_TASK = ("task.model", "task.data", "task.metric.callable", "task.metric.args")
"""What two studies must have in common for their metrics to compare and their networks to fit."""

TOLERANCE = 0.01
"""Share of the dense network's loss, and of the unit of its metric (1 for accuracy), that two devices may differ by."""

FIRST_GENERATION = {f"{sampler.__name__}:generation": 0 for sampler in (NSGAIISampler, NSGAIIISampler)}
"""Attributes by which Optuna's genetic samplers take a trial into their first generation."""


@dataclass(frozen=True)
class Source:
    """Another study, as it stood when it was read.

    Attributes:
        trials: The finished ones, by number.
    """

    study: StudyReader
    trials: tuple[StudyTrial, ...]


def find_source(spec: SearchConfig, base_dir: Path, folder: StudyFolder) -> Source | None:
    """The study that ``search.warm_start`` names, read without changing it.

    Args:
        base_dir: The space file's folder.
        folder: The study that is to begin with it.

    Returns:
        ``None`` if none is named, or all was taken over before.

    Raises:
        StudyError: If there is no such study, it has nothing to give, or its task is another one.
        ConfigError: If its space file can't be read any more.
    """
    named = spec.search.warm_start
    if named is None or (folder.warm_start.exists() and folder.reference.exists()):
        return None
    path = expand(named)
    root = next((each for each in (base_dir / path, path) if each.is_dir()), None)
    if root is None:
        raise StudyError(
            f"{WHERE}: there is no folder {named}. Name a study's, as seen from the space file or from where the "
            "command runs."
        )
    if root.resolve() == folder.root.resolve():
        raise StudyError(f"{WHERE}: {named} is this study itself. Name another one, or give this one another name.")
    if not (root / "space.yaml").is_file():
        raise StudyError(f"{WHERE}: {named} is not a study: it holds no space.yaml. Name one such as results/NAME.")
    study = StudyReader(root.resolve(), read_only=True)
    same = SAME_TASK if spec.task.metric.callable else (*SAME_TASK, "task.metric.name")
    changed = [line for line in differences(study.config, spec) if line.startswith(same)]
    if changed:
        raise StudyError(
            f"{WHERE}: {named} has another task ({'; '.join(changed)}), so its figures or networks don't belong "
            "here. Name a study of the same model, data and metric."
        )
    if not study.is_ready:
        raise StudyError(f"{WHERE}: {named} has no trials yet. Run its search first.")
    try:
        ended = [trial for trial in study.trials if trial.has_ended]
    except StudyError as error:
        raise StudyError(f"{WHERE}: {error}") from None
    finished = tuple(trial for trial in ended if trial.result is not None and trial.result.state == "finished")
    if not finished:
        raise StudyError(f"{WHERE}: no trial of {named} has finished yet. Wait for one, or leave it out.")
    return Source(study, finished)


def check_same_network(source: Source, checked: ValidatedSpace) -> None:
    """Raise StudyError if the other study's dense network has other groups or, where weights are given, other weights.

    Networks cut from other dense weights would have a false lineage here, and metrics that don't compare.
    """
    there, here = source.study.plan.group_widths, checked.plan.group_widths
    if there != here:
        unlike = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
        name = unlike[0]
        told = [f"{widths[name]} channels" if name in widths else "no such group" for widths in (there, here)]
        raise StudyError(
            f"{WHERE}: {source.study.root} has other groups: {name} has {told[0]} there, {told[1]} here. "
            "Name a study of the same network, with the same hidden_sizes."
        )
    weights = checked.spec.task.weights
    if weights is None:
        return
    state = named_tensors(checked.model)
    dense = named_tensors(load_model(source.study.network_folder(None), checked.task.build_model))
    if any(not torch.equal(tensor, state[name]) for name, tensor in dense.items()):
        raise StudyError(
            f"{WHERE}: {source.study.root} was searched from other dense weights than {weights}. Set task.weights to "
            "null to take its dense network over too, or leave warm_start out."
        )


def take_over(source: Source, session: PreparedStudy, places: WorkerResources) -> None:
    """Make the other study's finished trials trials of this one, and its networks parents.

    Each trial is taken over in one step, after its network; what a killed process has not come to is done next time.

    Raises:
        StudyError: If the dense network proves that the data or the metric are not the other study's, or the storage
            can't be used.
    """
    _check_same_metric(source, session)
    folder, spec = session.folder, session.spec
    study = open_study(folder, spec.search.storage, spec.study, spec.objectives, spec.directions)
    numbers = {
        int(taken["number"]): trial.number for trial in study.get_trials(deepcopy=False) if (taken := source_of(trial))
    }
    transfer = _Transfer(source, session, places)
    for trial in source.trials:
        if trial.number not in numbers:
            numbers[trial.number] = transfer.add(trial, study, numbers)
    jobs = SensitivityJobs(folder, session.space, wanted=wants_sensitivity(spec, session.space.plan))
    jobs.adopt(SearchSpace(source.study.config, source.study.plan), source.study.sensitivity)
    folder.write_json(folder.warm_start, {"study": source.study.config.study, "folder": str(source.study.root)})


def _check_same_metric(source: Source, session: PreparedStudy) -> None:
    dense = source.study.dense
    metric = session.spec.metric
    unlike = abs(dense.metric - session.dense.metric) > TOLERANCE * metric.unit(dense.metric)
    if source.study.config.task.loss == session.spec.task.loss:
        unlike |= abs(dense.loss - session.dense.loss) > TOLERANCE * abs(dense.loss)
    if unlike:
        told = [f"{metric.text(each.metric)} (loss {each.loss:.4f})" for each in (dense, session.dense)]
        raise StudyError(
            f"{WHERE}: the dense network's {metric.name} is {told[0]} in {source.study.root} and {told[1]} here, so "
            "task.data or task.metric mean something else by now. Leave warm_start out, in a study of another name."
        )


class _Transfer:
    """Turns trials of another study into trials of this one."""

    def __init__(self, source: Source, session: PreparedStudy, places: WorkerResources) -> None:
        self._source, self._session, self._places = source, session, places
        self._front = Front(session.spec.objectives, session.spec.metric)
        self._ladder = session.space.ladder(ladder_steps(session.spec, session.space.plan))
        self._start = start_name(session.spec, session.space.plan)
        self._same_latency = session.dense.latency.conditions() == source.study.dense.latency.conditions()
        self._scratch = session.folder.checkpoints / ".warm_start"

    def add(self, trial: StudyTrial, study: optuna.Study, numbers: Mapping[int, int]) -> int:
        """Add a trial; its parent was added before.

        Args:
            numbers: Number of a trial there -> its number here.

        Returns:
            The number that it has here.
        """
        source, session = self._source, self._session
        config, result = trial.config, trial.result
        assert config is not None
        assert result is not None
        number = len(study.get_trials(deepcopy=False))
        location = locate(session.space, config)
        parent = None if config.parent is None else numbers[config.parent]
        whole = location.whole and (self._start != "dense" or parent is None)
        config = replace(config, run=number, parent=parent, params=location.params)
        result = replace(result, run=number, cost=self._cost(result))
        over = self._over_ceiling(result)
        taken = {"study": source.study.config.study, "number": trial.number, "allowed": location.cut and not over}
        session.folder.checkpoint_store.delete(number)
        if location.depth:
            record = {"config": to_dict(config), "result": to_dict(result), "source": taken}
            self._copy_network(trial.number, number, record)
        attributes: dict[str, Any] = {
            CONFIG: json.dumps(to_dict(config)),
            RESULT: json.dumps(to_dict(result)),
            SOURCE: taken,
            **({PARENT: parent} if PARENT in trial.user_attrs else {}),
            **{name: trial.user_attrs[name] for name in (ORIGIN, CURVE) if name in trial.user_attrs},
        }
        ratio = trial.user_attrs.get(LADDER)
        if whole and parent is None and ratio in self._ladder and config.params.items() <= self._ladder[ratio].items():
            attributes[LADDER] = ratio  # a step of this study's ladder too: it need not be run again
        # Where the space could not have suggested it, Optuna's samplers must not take it for a point of the space.
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if whole else TrialState.PRUNED,
                values=self._front.values(result) if whole else None,
                params=location.params if whole else {},
                distributions=location.distributions if whole else {},
                user_attrs=attributes,
                system_attrs=dict(FIRST_GENERATION) if whole else {},
                constraints={CONSTRAINT: float(over)} if session.spec.constraints.ceilings else None,
            )
        )
        return number

    def _cost(self, result: TrialResult) -> Cost:
        """The trial's cost; a latency that was measured elsewhere is measured here if it matters, else left out."""
        cost, spec = result.cost, self._session.spec
        assert cost is not None
        if self._same_latency:
            return cost
        if "latency_ms" in (*spec.objectives, *spec.constraints.ceilings):
            return replace(cost, latency_ms=self._latency(result))
        return replace(cost, latency_ms=None)

    def _latency(self, result: TrialResult) -> float | None:
        """Latency on this device of a network of the trial's widths; its weights don't matter."""
        task, plan, device = self._session.task, self._session.space.plan, self._places.device
        widths = {group: width for group, width in result.kept.items() if width}
        pruning = PruningConfig(widths=widths, criterion="l1", removed_blocks=result.removed_blocks)
        threads = self._session.dense.latency.threads
        with working_in(self._session.folder.base_dir):
            model = prune(self._dense, plan, pruning, example_inputs=task.example_inputs(2)).model.to(device)
            return measure_cost(model, task.example_inputs(), 0, device, latency=True, threads=threads).latency_ms

    @cached_property
    def _dense(self) -> torch.nn.Module:
        return load_model(self._session.folder.dense, self._session.task.build_model)

    def _over_ceiling(self, result: TrialResult) -> bool:
        dense, ceilings = self._session.dense, self._session.spec.constraints.ceilings
        return any(getattr(result.cost, name) > ceiling.limit(dense.value(name)) for name, ceiling in ceilings.items())

    def _copy_network(self, there: int, here: int, record: Mapping[str, Any]) -> None:
        """Take a trial's network over, whole or not at all; the other study may delete it meanwhile."""
        folder = self._session.folder
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        if not self._source.study.copy_network(there, self._scratch):
            shutil.rmtree(self._scratch)
            return
        copied = self._scratch / folder.record(here).name
        folder.write_json(copied, {**record, "outputs": folder.read_json(copied).get("outputs")})
        self._scratch.replace(folder.model(here))
        folder.checkpoint_store.save_model(here)
