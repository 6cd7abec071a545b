"""Reading a study: the same as Optuna reads, and in as many queries and objects for many trials as for few.

The first tests tell which private part of Optuna an upgrade has changed.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from autoprune.search.prepare import PreparedStudy
from autoprune.study.database import Database
from autoprune.study.folder import StudyFolder
from autoprune.study.optuna_private import HoldingStorage, read_trial, requeue, set_user_attr
from autoprune.study.optuna_storage import open_study
from autoprune.study.reader import StudyReader
from benchmarks.suggest_time_studies import Filling, Problem


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def mixed(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A study with trials in every state, with values of every kind."""
    folder, url = StudyFolder(tmp_path), f"sqlite:///{tmp_path}/study.db"
    folder.write_json(folder.origin, {})
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    study = open_study(folder, url, "mixed", ["accuracy", "flops"], ["maximize", "minimize"])
    url = Database.named(url).url.render_as_string(hide_password=False)
    for index in range(8):
        trial = study.ask()
        trial.suggest_float("lr", 1e-3, 1.0, log=True)
        trial.suggest_categorical("kind", ["cosine", None, True, 3])
        if index % 2:
            trial.suggest_int("epochs", 1, 8)
            trial.set_user_attr("note", {"index": index, "text": "ä"})
            trial.set_constraint("ceilings", 1.0)
    study.tell(0, [0.5, 2.0])
    study.tell(1, [float("inf"), -float("inf")])
    study.tell(2, state=TrialState.PRUNED)
    study.tell(3, state=TrialState.FAIL)
    study.enqueue_trial({"lr": 0.1}, user_attrs={"ladder": 0.5})
    storage = RDBStorage(url)
    single = optuna.create_study(storage=storage, study_name="single")
    trial = single.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    for step, value in enumerate((0.25, float("nan"), float("inf"))):
        trial.report(value, step)
    storage.engine.dispose()
    return url


def parameters(function: Callable[..., object]) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("method", "taken"),
    [
        ("_set_trial_param", ["trial_id", "param_name", "param_value_internal", "distribution"]),
        ("_get_trials", ["study_id", "states", "included_trial_ids", "trial_id_greater_than"]),
        ("_set_trial_param_without_commit", ["session", "trial_id", "param_name", "param_value_internal"]),
        ("get_trial", ["trial_id"]),
    ],
)
def test_optuna_still_has_the_private_method(method: str, taken: list[str]) -> None:
    changed = f"Optuna {optuna.__version__} changed RDBStorage.{method}: adapt study/optuna_private.py, or bound optuna"
    assert parameters(getattr(RDBStorage, method, print))[1 : 1 + len(taken)] == taken, changed


def test_optuna_still_writes_and_reads_by_the_private_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = set()
    for name in ("_set_trial_param", "_get_trials", "get_trial", "_write"):
        original = getattr(HoldingStorage, name)

        def noting(*args: Any, name: str = name, original: Callable[..., Any] = original, **kwargs: Any) -> Any:
            used.add(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(HoldingStorage, name, noting)
    study = open_study(StudyFolder(tmp_path), None, "s", ["accuracy", "flops"], ["maximize", "minimize"])
    changed = f"Optuna {optuna.__version__} no longer goes through what study/optuna_private.py replaces"
    trial = study.ask()
    trial.suggest_float("lr", 0, 1)
    assert used >= {"_set_trial_param", "_get_trials"}, changed
    assert "_write" not in used, f"{changed}: a suggested value is not held back"
    set_user_attr(study, 0, "key", [1])
    assert "_write" in used, f"{changed}: the held values are not written before all else"
    used.clear()
    trial = read_trial(study, 0)
    assert "get_trial" in used, changed
    assert (trial.user_attrs, list(trial.params)) == ({"key": [1]}, ["lr"])
    requeue(study, 0)
    assert read_trial(study, 0).state == TrialState.WAITING
    assert study.ask().number == 0


def test_trials_are_those_that_optuna_reads(mixed: str) -> None:
    ours, optunas = HoldingStorage(mixed), RDBStorage(mixed)

    def read(storage: RDBStorage, *which: Any) -> list[dict[str, Any]]:
        return [text_of(trial) for trial in storage._get_trials(*which)]

    def text_of(trial: FrozenTrial) -> dict[str, Any]:  # as text, in which NaN equals NaN
        return {name: repr(value) for name, value in vars(trial).items()}

    for study_id, n_trials in ((1, 9), (2, 1)):
        everything = read(ours, study_id, None, set(), -1)
        assert len(everything) == n_trials
        assert everything == read(optunas, study_id, None, set(), -1)
    for which in (
        (1, (TrialState.COMPLETE, TrialState.PRUNED), set(), -1),
        (1, None, {5, 6, 9}, 7),
        (1, None, set(), 4),
        (1, None, set(), 9),
    ):
        assert read(ours, *which) == read(optunas, *which)
    with pytest.raises(KeyError):
        ours._get_trials(3, None, set(), -1)
    for storage in (ours, optunas):
        storage.engine.dispose()


def test_status_reads_a_study_whole_not_trial_by_trial(
    tiny_study: Callable[..., PreparedStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_study({"study": "suggest_time"}).folder
    filling = Filling(Problem(9), folder)
    statements: list[str] = []
    built: list[object] = []
    make = FrozenTrial.__init__
    monkeypatch.setattr(
        FrozenTrial, "__init__", lambda *args, **kwargs: (built.append(args[0]), make(*args, **kwargs))[1]
    )

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        counts = []
        for n_trials in (5, 60):
            filling.up_to(n_trials)
            statements.clear()
            summary = StudyReader(folder.root).status()
            assert (summary.n_ended, summary.counts["finished"]) == (n_trials, n_trials)
            counts.append(len(statements))
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
    assert counts[0] == counts[1] <= 10
    assert built == []
