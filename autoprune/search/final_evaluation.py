"""After the search: the test split is read, once for each point of the front."""

import pandas as pd
import torch

from autoprune.formats.saved_model import load_model
from autoprune.study.folder import StudyFolder
from autoprune.study.tables import DENSE, known_test_metric
from autoprune.tasks.task import Task
from autoprune.training.evaluation import evaluate
from autoprune.training.precision import FLOAT32, Precision


def evaluate_on_test(
    folder: StudyFolder, task: Task, front: pd.DataFrame, device: torch.device, precision: Precision = FLOAT32
) -> dict[str, float]:
    """Metric on the test split of the dense network and of every point of the front.

    A figure that was read before is not read again, so no choice is ever made by the test split.

    Args:
        front: The front's rows of ``trials.parquet``.
        precision: Those that the trials were judged with.

    Returns:
        ``"dense"`` or trial number, as text -> metric on the test split.
    """
    known = known_test_metric(folder)
    for key in (DENSE, *map(str, front["number"])):
        if key not in known:
            number = None if key == DENSE else int(key)
            folder.checkpoint_store.fetch_model(number)
            model = load_model(folder.model(number), task.build_model)
            test = evaluate(model.to(device), task.data.test, task, device, precision=precision)
            name = "the dense network" if number is None else f"trial {number}"
            known[key] = test.check_finite("test", f"for {name}").metric
            folder.write_json(folder.test, known)
    return known
