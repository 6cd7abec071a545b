"""A study keeps to its data: every worker and every later command must find the splits that it began with."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import TINY_TASK, copy_study, tiny_folder, write_space

from autoprune.engines.inline import run_in_process
from autoprune.errors import StudyError, TaskError
from autoprune.search.callbacks import Callback, EvaluateFront, Stage
from autoprune.search.prepare import PreparedStudy
from autoprune.search.run import run_search
from autoprune.search.study_data import check_study_data, keep_study_data
from autoprune.search.validate import ValidatedSpace, read_space, validate_space
from autoprune.study.data_file import read_data_report
from autoprune.study.folder import StudyFolder
from autoprune.trial import TrialConfig, TrialResult
from autoprune.worker import Worker

SHIFTED = TINY_TASK.replace('"validation": (200, 350)', '"validation": (210, 360)')
DIMMED = TINY_TASK.replace("digits.images / 16", "digits.images / 255")
SHARED = TINY_TASK.replace('"test": (350, 500)', '"test": (340, 490)')


def validated(root: Path, task: str = TINY_TASK) -> tuple[ValidatedSpace, StudyFolder]:
    """The tiny study of a folder, with the data as a text of the user's module has them."""
    sys.modules.pop("tiny_task", None)
    shutil.rmtree(root / "__pycache__", ignore_errors=True)
    return validate_space(read_space(write_space(root, {}, task))), tiny_folder(root)


class Warnings(Callback):
    """Keeps the warnings that it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_warning(self, message: str) -> None:
        self.heard.append(message)


@pytest.fixture
def finished(finished_tiny: Path, tmp_path: Path) -> Path:
    """A copy of the finished tiny study, to be changed."""
    return shutil.copytree(finished_tiny, tmp_path / "finished")


@pytest.mark.parametrize(
    ("task", "split"),
    [(SHIFTED, "validation"), (DIMMED, "train"), (SHARED, "test")],
    ids=["shifted", "dimmed", "shared"],
)
def test_a_study_does_not_go_on_with_other_data(finished: Path, task: str, split: str) -> None:
    (finished / "tiny_task.py").write_text(task)
    with pytest.raises(
        TaskError, match=rf"space.yaml:\d+: task.data: the {split} split has other content .*another name"
    ):
        run_search(finished / "space.yaml", finished / "results", run_in_process, n_trials=7)


def test_a_worker_process_has_the_same_data_or_does_no_trial(finished: Path, tmp_path: Path) -> None:
    Worker(tiny_folder(finished))
    moved = shutil.copytree(finished, tmp_path / "moved", ignore=shutil.ignore_patterns("__pycache__"))
    (moved / "tiny_task.py").write_text(SHIFTED)
    with pytest.raises(TaskError, match=r"task.data: in a worker process the validation split has other content"):
        Worker(tiny_folder(moved))


def test_until_the_dense_network_is_measured_data_may_be_mended(tmp_path: Path) -> None:
    checked, folder = validated(tmp_path)
    folder.create()
    keep_study_data(check_study_data(checked, folder), checked, folder, Callback())
    (folder.dense / "training").write_text("an epoch of it")
    keep_study_data(check_study_data(checked, folder), checked, folder, Callback())
    assert (folder.dense / "training").exists()
    checked, _ = validated(tmp_path, DIMMED)
    report = check_study_data(checked, folder)
    keep_study_data(report, checked, folder, Callback())
    assert not (folder.dense / "training").exists()
    assert read_data_report(folder.data) == report


def test_warnings_are_told_by_every_command(tmp_path: Path, tiny_study: Callable[..., PreparedStudy]) -> None:
    root = tiny_study(task=SHARED).folder.base_dir
    checked, folder = validated(root, SHARED)
    for _ in range(2):
        warnings = Warnings()
        keep_study_data(check_study_data(checked, folder), checked, folder, warnings)
        (heard,) = warnings.heard
        assert heard.startswith("task.data: 10 of 150 test examples also stand in the validation split (example 0")


def test_a_damaged_file_is_named(finished: Path) -> None:
    tiny_folder(finished).data.write_text('{"splits": {}}')
    with pytest.raises(StudyError, match=r"data.json: no fingerprints of splits: 'train'. Restore it"):
        run_search(finished / "space.yaml", finished / "results", run_in_process, n_trials=7)


@pytest.mark.parametrize("task", [SHIFTED, SHARED], ids=["shifted", "shared"])
def test_trials_judged_on_other_data_are_not_taken_over(finished: Path, tmp_path: Path, task: str) -> None:
    changes = {"study": "second", "search": {"warm_start": str(tiny_folder(finished).root)}}
    space = write_space(tmp_path / "second", changes, task)
    with pytest.raises(StudyError, match=r"so its accuracies don't compare. Name a study of the same data"):
        run_search(space, tmp_path / "second" / "results", run_in_process)


class Breaks(Callback):
    """Breaks an example of every split while the first trial runs, and again before the front is evaluated."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def on_trial_start(self, config: TrialConfig) -> None:
        if config.run == 0:
            self.flag.touch()

    def on_trial_end(self, config: TrialConfig, result: TrialResult) -> None:
        self.flag.unlink(missing_ok=True)

    def on_stage(self, stage: Stage) -> None:
        if isinstance(stage, EvaluateFront):
            self.flag.touch()


def test_a_broken_example_fails_what_reads_it_and_no_more(
    tmp_path: Path, trained_tiny: Path, brief_latency: None
) -> None:
    task = TINY_TASK.replace(
        "    def batch(self, indices):\n",
        "    def batch(self, indices):\n"
        "        import pathlib\n"
        "        if pathlib.Path('broken').exists() and 77 in indices:\n"
        "            raise OSError('image 77 is cut short')\n",
    )
    space = copy_study(trained_tiny, tmp_path, {"search": {"trials": 3, "ladder": 0}}, task)
    outcome = run_search(space, tmp_path / "results", run_in_process, callbacks=[Breaks(tmp_path / "broken")])
    errors = outcome.driver.frame().set_index("number")["error"]
    assert errors[0].startswith(
        "task.data: reading example 77 of the train split raised OSError: image 77 is cut short"
    )
    assert errors[[1, 2]].isna().all()
    assert outcome.test_error is not None
    assert "reading example 77 of the test split raised OSError" in outcome.test_error
    assert "No trial is lost" in outcome.test_error
    assert tiny_folder(tmp_path).front.exists()
    (tmp_path / "broken").unlink()
    mended = run_search(space, tmp_path / "results", run_in_process)
    assert mended.test_error is None
    assert tiny_folder(tmp_path).test.exists()
