"""data.json of a study: the fingerprints of its splits, which every process and every later command must find again."""

import logging
from pathlib import Path

from autoprune.errors import StudyError
from autoprune.search.callbacks import Callback
from autoprune.search.validate import ValidatedSpace
from autoprune.study.data_file import read_data_report
from autoprune.study.folder import StudyFolder
from autoprune.tasks.data_check import DataReport, check_data
from autoprune.tasks.fingerprint import check_same_splits, differences, told_of
from autoprune.tasks.working_folder import working_in

logger = logging.getLogger(__name__)


def check_study_data(checked: ValidatedSpace, folder: StudyFolder) -> DataReport:
    """Compare the data with those that the study began with, or look through those of a new study.

    A study begins with the first measurement of the dense network: what was changed before, such as an example that
    could not be read, has spoiled nothing.

    Raises:
        TaskError: If the data have changed, or won't do.
    """
    spec, base_dir = checked.spec, checked.file.base_dir
    with working_in(base_dir):
        if folder.reference.exists() and folder.data.exists():
            report = read_data_report(folder.data)
            check_same_splits(checked.task.data, report.fingerprints)
            return report
        return check_data(checked.task.data, spec.task.data, base_dir, checked.task.load_time_s)


def keep_study_data(report: DataReport, checked: ValidatedSpace, folder: StudyFolder, callback: Callback) -> None:
    """Write down what was found of the data, and tell the warnings; dense training on other data begins anew."""
    for warning in report.warnings:
        callback.on_warning(warning)
    if folder.data.exists() and not folder.reference.exists():
        with working_in(checked.file.base_dir):
            changed = differences(checked.task.data, read_data_report(folder.data).fingerprints)
        if changed:
            logger.info("the dense network is trained anew: %s", told_of(changed))
            (folder.dense / "training").unlink(missing_ok=True)
            folder.data.unlink()
    if not folder.data.exists():
        folder.write_json(folder.data, report.to_dict())


def check_same_data(root: Path, checked: ValidatedSpace, where: str) -> None:
    """Compare the data with those of another study, whose trials are to be taken over.

    Other training examples are logged: networks and accuracies still compare.

    Args:
        root: The other study's folder; one of an earlier autoprune has no fingerprints.
        where: The setting that names it, for the error.

    Raises:
        StudyError: If the validation or the test split is another one.
    """
    file = StudyFolder(root).data
    if not file.exists():
        return
    with working_in(checked.file.base_dir):
        changed = differences(checked.task.data, read_data_report(file).fingerprints)
    train = changed.pop("train", None)
    if changed:
        raise StudyError(
            f"{where}: compared with {root}, {told_of(changed)}, so its accuracies don't compare. Name a study of the "
            "same data, or leave it out."
        )
    if train is not None:
        logger.warning("%s: compared with %s, the train split has %s", where, root, train)
