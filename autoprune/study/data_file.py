"""data.json: the fingerprints of a study's splits, and what was found of them when it began."""

from pathlib import Path

from autoprune.errors import StudyError
from autoprune.study.folder import StudyFolder
from autoprune.tasks.data_check import DataReport


def read_data_report(path: Path) -> DataReport:
    """Read what a study wrote of its data; raises StudyError if the file is missing or damaged."""
    try:
        return DataReport.from_dict(StudyFolder.read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(f"{path}: no fingerprints of splits: {error}. Restore it, or start the study anew.") from None
