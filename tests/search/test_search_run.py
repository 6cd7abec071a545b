"""A whole search by the space file alone, in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from changes import OnChange

from autoprune.engines import load_engine
from autoprune.errors import StudyError, TaskError
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.search.replication.replication import Replication
from autoprune.search.run import Outcome, run_search
from autoprune.study.folder import StudyFolder
from autoprune.study.replication import replicate_results

Run = Callable[..., Outcome]


@pytest.fixture
def run(tiny_study: Callable[..., PreparedStudy]) -> Run:
    """Searches a tiny study, made from changes to the space file, on the inline engine."""

    def search(changes: dict[str, Any] | None = None, n_trials: int | None = None, **told: Any) -> Outcome:
        folder = tiny_study({"training": {"epochs": 1}, **(changes or {})}).folder
        return run_search(folder.base_dir / "space.yaml", folder.root.parent, load_engine("inline"), n_trials, **told)

    return search


def test_a_study_is_run_kept_and_extended(run: Run) -> None:
    heard = OnChange()
    outcome = run(n_trials=3, callbacks=[heard])
    assert (outcome.interrupted, outcome.was_complete, outcome.driver.n_told) == (False, False, 3)
    assert heard.stages == ["starting the trials", "reading the test split for the front"]
    folder = outcome.session.folder
    trials, front = pd.read_parquet(folder.trials), pd.read_parquet(folder.front)
    assert trials["number"].tolist() == [0, 1, 2]
    assert front["metric.accuracy_test"].notna().all()
    n_read = outcome.session.task.data.test.n_read  # type: ignore[attr-defined]
    assert n_read == 150 * (1 + len(front))

    again = run(n_trials=3)
    assert again.was_complete
    assert again.session.task.data.test.n_read == 0  # type: ignore[attr-defined]
    pd.testing.assert_frame_equal(pd.read_parquet(folder.trials), trials)
    pd.testing.assert_frame_equal(pd.read_parquet(folder.front), front)

    more = run(n_trials=5)
    assert (more.was_complete, more.driver.n_told) == (False, 5)
    extended = pd.read_parquet(folder.trials)
    pd.testing.assert_frame_equal(extended[:3].drop(columns="on_front"), trials.drop(columns="on_front"))


def test_settings_that_may_change_count_from_the_next_run_on(run: Run) -> None:
    outcome = run({"search": {"trials": 2}})
    assert outcome.driver.n_told == 2
    space = outcome.session.folder.base_dir / "space.yaml"
    space.write_text(space.read_text().replace("trials: 2", "trials: 4"))
    assert run().driver.n_told == 4


def test_a_study_ends_when_its_epochs_are_spent(run: Run) -> None:
    changes = {"training": {"epochs": 2}, "search": {"trials": 9, "epochs": 5}}
    outcome = run(changes)
    assert (outcome.driver.n_told, outcome.driver.n_epochs) == (3, 6)  # the last was begun with one left
    assert run().was_complete
    space = outcome.session.folder.base_dir / "space.yaml"
    space.write_text(space.read_text().replace("epochs: 5", "epochs: 7"))
    assert run().driver.n_told == 4


def test_ctrl_c_leaves_a_study_that_goes_on(run: Run) -> None:
    def press(driver: Driver) -> None:
        if driver.n_told == 2:
            raise KeyboardInterrupt

    outcome = run(n_trials=4, callbacks=[OnChange(press)])
    assert outcome.interrupted
    assert [trial.state.name for trial in outcome.driver.study.trials].count("RUNNING") == 0
    front = pd.read_parquet(outcome.session.folder.front)
    assert len(pd.read_parquet(outcome.session.folder.trials)) == 2
    assert front["metric.accuracy_test"].isna().all()
    assert run(n_trials=4).driver.n_told == 4


def n_tested(folder: StudyFolder) -> int:
    """How many replicates have read the test split."""
    return sum(result.metric_test is not None for result in replicate_results(folder).values())


def test_a_finished_study_is_certified_when_the_space_file_says_so(
    run: Run, tiny_study: Callable[..., PreparedStudy]
) -> None:
    folder = run(n_trials=3).session.folder
    trials, front = pd.read_parquet(folder.trials), pd.read_parquet(folder.front)
    space = folder.base_dir / "space.yaml"
    space.write_text(space.read_text() + "certify: {seeds: 2}\n")
    n_changes = 0

    def press(certification: Replication) -> None:
        nonlocal n_changes
        n_changes += 1
        if certification.status().n_finished == 1:
            raise KeyboardInterrupt

    cut = run(n_trials=3, callbacks=[OnChange(on_replicates=press)])
    assert cut.was_complete
    assert cut.interrupted
    assert pd.read_parquet(folder.front)["lineage.runs"].sum() == 1

    heard = OnChange()
    n_tested_before = n_tested(folder)
    outcome = run(n_trials=3, callbacks=[heard])
    assert (outcome.interrupted, outcome.stopped_because) == (False, None)
    assert heard.stages == ["reading the test split for the front", "certifying the front"]
    n_read = outcome.session.task.data.test.n_read  # type: ignore[attr-defined]
    assert n_read == 150 * (n_tested(folder) - n_tested_before)  # by the replicates only
    pd.testing.assert_frame_equal(pd.read_parquet(folder.trials), trials)
    certified = pd.read_parquet(folder.front)
    pd.testing.assert_frame_equal(certified[front.columns], front)
    assert set(certified["lineage.runs"]) == {2}
    assert certified.filter(like="accuracy_test").notna().all(axis=None)
    assert certified["holds"].notna().all()
    assert len(list(folder.certification.iterdir())) == 2 * len(front)  # random sampler: all start from dense

    def breaks(*_: Any) -> None:
        raise AssertionError("nothing is left to do")

    run_search(space, folder.root.parent, breaks, 3)
    pd.testing.assert_frame_equal(pd.read_parquet(folder.front), certified)


def test_too_many_failures_end_it_with_their_cause(run: Run) -> None:
    fails = {"kind": "constant", "lr": 1.0e30}
    outcome = run({"training": {"lr_schedule": fails, "epochs": 4}, "search": {"max_failures": 2, "ladder": 0}})
    assert outcome.driver.n_told == 2
    assert outcome.driver.stopped_because is not None
    assert "2 trials in a row failed" in outcome.driver.stopped_because
    assert "must be finite" in outcome.driver.stopped_because
    assert pd.read_parquet(outcome.session.folder.front).empty


def test_an_engine_that_breaks_leaves_nothing_running(run: Run, tiny_study: Callable[..., PreparedStudy]) -> None:
    folder = tiny_study({"training": {"epochs": 1}}).folder

    def breaks(driver: Driver, *_: Any) -> None:
        driver.suggest()
        raise TaskError("no data")

    with pytest.raises(TaskError):
        run_search(folder.base_dir / "space.yaml", folder.root.parent, breaks)
    assert run(n_trials=2).driver.n_told == 2


def test_a_study_is_searched_by_one_process_at_a_time(run: Run, tiny_study: Callable[..., PreparedStudy]) -> None:
    folder = tiny_study({"training": {"epochs": 1}}).folder
    with folder.lock(), pytest.raises(StudyError, match="is being searched by process"):
        run()


def test_a_mistake_is_found_before_anything_is_written(
    tiny_study: Callable[..., PreparedStudy], tmp_path: Path
) -> None:
    space = tiny_study().folder.base_dir / "space.yaml"
    space.write_text(space.read_text().replace("tiny_task:data", "tiny_task:date"))
    with pytest.raises(TaskError, match="did you mean 'data'"):
        run_search(space, tmp_path / "new", load_engine("inline"))
    assert not (tmp_path / "new").exists()
