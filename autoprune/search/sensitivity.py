"""The sensitivity map of the network that a space file names."""

from collections.abc import Callable

import torch
from torch import nn

from autoprune.config import SearchConfig
from autoprune.errors import PruningError, TaskError
from autoprune.formats.saved_model import load_model
from autoprune.pruning.sensitivity.map import SensitivityMap
from autoprune.pruning.sensitivity.measure import measure_map, points_to_measure
from autoprune.search.validate import ValidatedSpace, check_same_study, in_file
from autoprune.study.folder import StudyFolder
from autoprune.tasks.working_folder import working_in
from autoprune.worker.task_meter import task_meter


def trained_network(checked: ValidatedSpace, folder: StudyFolder) -> nn.Module:
    """The dense network with the weights that the space file names, or as the study trained it.

    Args:
        folder: Of the study; it need not exist.

    Raises:
        TaskError: If there are no trained weights.
        StudyError: If the study was started from a different space file.
    """
    if checked.spec.task.weights is not None:
        return checked.model
    if not folder.reference.exists():
        with in_file(checked.file.path):
            raise TaskError(
                f"task.weights: sensitivity is measured on a trained network, got no weights, and {folder.dense} holds "
                "none either. Name a file of weights, or run `autoprune search` first, which trains the network."
            )
    check_same_study(folder, checked.file)
    return load_model(folder.dense, checked.task.build_model)


def first_criterion(spec: SearchConfig) -> str:
    """The importance criterion that the space file names first."""
    neuron = spec.method("neuron")
    if neuron is None:
        return "l2"
    return str(neuron.criterion[0] if isinstance(neuron.criterion, list) else neuron.criterion)


def measure_sensitivity(
    checked: ValidatedSpace,
    model: nn.Module,
    n_examples: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> SensitivityMap:
    """Cut each group alone to several widths and measure, one after the other, on the GPU if there is one.

    Args:
        model: The trained dense network.
        n_examples: Training examples to judge on; ``None`` takes the default.
        on_progress: Told the number of points measured and that of all.

    Raises:
        PruningError: If the network has no groups, or a cut fails.
    """
    spec, points = checked.spec, points_to_measure(checked.plan, round_to=checked.spec.round_to)
    if not points:
        raise PruningError("no group of this network can be cut, so there is no sensitivity. See what is left out.")
    done = 0

    def count(point: object) -> None:
        nonlocal done
        done += 1
        on_progress(done, len(points))

    on_progress(0, len(points))
    with working_in(checked.file.base_dir):
        meter = task_meter(
            model,
            checked.plan,
            checked.task,
            spec.metric,
            torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            criterion=first_criterion(spec),
            seed=spec.search.seed,
            **({} if n_examples is None else {"n_examples": n_examples}),
        )
        return measure_map(meter, points, spec.round_to, count)
