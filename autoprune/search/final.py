"""After the search: the test split is read, once for each point of the front, and the front gets its last columns."""

import pandas as pd
import torch

from autoprune.saved_model import load_model
from autoprune.search.certification import with_certification
from autoprune.spec import SearchSpec
from autoprune.store import StudyFolder
from autoprune.tasks.task import Task
from autoprune.training import evaluate

DENSE = "dense"


def read_test_split(folder: StudyFolder, task: Task, front: pd.DataFrame, device: torch.device) -> dict[str, float]:
    """Accuracy on the test split of the dense network and of every point of the front.

    A figure that was read before is not read again, so no choice is ever made by the test split.

    Args:
        front: The front's rows of ``trials.parquet``.

    Returns:
        ``"dense"`` or trial number, as text -> accuracy on the test split.
    """
    known = known_test_accuracy(folder)
    for key in (DENSE, *map(str, front["number"])):
        if key not in known:
            number = None if key == DENSE else int(key)
            model = load_model(folder.model(number), task.build_model)
            known[key] = evaluate(model.to(device), task.data.test, task, device).accuracy
            folder.write_json(folder.test, known)
    return known


def known_test_accuracy(folder: StudyFolder) -> dict[str, float]:
    """What was read of the test split so far: ``"dense"`` or trial number, as text -> accuracy."""
    known: dict[str, float] = folder.read_json(folder.test) if folder.test.exists() else {}
    return known


def final_front(folder: StudyFolder, front: pd.DataFrame, spec: SearchSpec) -> pd.DataFrame:
    """The front's rows of ``trials.parquet``, with what the test split and a certification have added so far."""
    return with_certification(folder, with_test_accuracy(folder, front), spec.objectives, spec.directions)


def with_test_accuracy(folder: StudyFolder, front: pd.DataFrame) -> pd.DataFrame:
    """The front with the column ``accuracy_test``, missing where the test split has not been read yet."""
    known = known_test_accuracy(folder)
    column = pd.Series([known.get(str(number)) for number in front["number"]], index=front.index, dtype="float64")
    return front.assign(accuracy_test=column)
