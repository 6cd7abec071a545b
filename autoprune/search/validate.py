"""A space file and all that it names, tried before anything is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from autoprune.config import SearchConfig, SpaceFile, differences, located, read_space_file, valid_task
from autoprune.config.paths import expand
from autoprune.cost import CostTable, build_table
from autoprune.errors import ConfigError, StudyError, TaskError
from autoprune.formats.saved_model import load_model
from autoprune.pruning.methods import PRUNING_METHODS
from autoprune.pruning.plan import PruningPlan
from autoprune.pruning.planner import make_plan
from autoprune.search.constraints import CostConstraints
from autoprune.search.samplers.registry import load_sampler
from autoprune.search.space import SearchSpace
from autoprune.search.state_check import check_kept_state
from autoprune.study.folder import StudyFolder
from autoprune.study.lineage import dense_training
from autoprune.study.plan_file import read_plan_part
from autoprune.tasks.build import build_task
from autoprune.tasks.check import check_task
from autoprune.tasks.task import Task
from autoprune.tasks.weights import load_weights
from autoprune.tasks.working_folder import working_in


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
    with in_file(file.path), working_in(file.base_dir):
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
        plan, table = read_plan(plan_file)
        read_plan_part(plan_file, "scores", dict)  # the sampler needs them
    else:
        check_kept_state(task, model, spec.task.model)
        neuron = spec.method("neuron")
        plan = make_plan(model, task.example_inputs(2), hidden_sizes=neuron is not None and neuron.hidden_sizes)
        table = build_table(
            model,
            task.example_inputs(),
            widths=plan.group_widths,
            shrink=plan.shrink,
            products=plan.products,
            positions=plan.positions,
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
        found = checked.plan.main_obstacle
        where = f": {found.module or 'the network'}: {found.reason}" if found else ""
        option = found.option if found and "neuron" in methods else ""
        way_out = f"`{option}: true` under the method neuron lets these channels leave." if option else ""
        way_out = way_out or (found.advice if found else "")
        raise ConfigError(
            [
                f"pruning: nothing of this network can be pruned by {' or '.join(methods)}{where}. "
                f"{way_out or '`autoprune plan` says why.'}"
            ]
        )


def check_same_study(folder: StudyFolder, file: SpaceFile) -> None:
    """Refuse to go on with a study that was started from another space file; raises StudyError with the differences."""
    folder.check_schema()
    if not folder.space.exists() or folder.space.read_bytes() == file.content:
        return
    changed = differences(StudyFolder(folder.root).config, file.config)
    if changed:
        raise StudyError(
            f"{folder.root} was started from a different space file ({'; '.join(changed)}). "
            "Give the study another name, or restore the file."
        )


def read_plan(path: Path) -> tuple[PruningPlan, CostTable]:
    return read_plan_part(path, "plan", PruningPlan.from_dict), read_plan_part(path, "table", CostTable.from_dict)
