"""The columns that the front gets after the search: accuracy on the test split, and what a certification found."""

import pandas as pd

from autoprune.config import SearchConfig
from autoprune.study.folder import StudyFolder
from autoprune.study.replication import with_replication

DENSE = "dense"


def known_test_accuracy(folder: StudyFolder) -> dict[str, float]:
    """What was read of the test split so far: ``"dense"`` or trial number, as text -> accuracy."""
    known: dict[str, float] = folder.read_json(folder.test) if folder.test.exists() else {}
    return known


def final_front(folder: StudyFolder, front: pd.DataFrame, spec: SearchConfig) -> pd.DataFrame:
    """The front's rows of ``trials.parquet``, with what the test split and a certification have added so far."""
    return with_replication(folder, with_test_accuracy(folder, front), spec.objectives, spec.directions)


def with_test_accuracy(folder: StudyFolder, front: pd.DataFrame) -> pd.DataFrame:
    """The front with the column ``accuracy_test``, missing where the test split has not been read yet."""
    known = known_test_accuracy(folder)
    column = pd.Series([known.get(str(number)) for number in front["number"]], index=front.index, dtype="float64")
    return front.assign(accuracy_test=column)
