"""A process that dies anywhere loses nothing that was told, counts nothing twice, and leaves nothing running."""

import os
import re
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState
from tiny import merged

from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.search.space import SearchSpace
from autoprune.study.database import Database
from autoprune.study.exit_note import ExitNote
from autoprune.study.reader import StudyReader
from autoprune.trial import Cost, TrialConfig, TrialResult, run_name

MakeDriver = Callable[..., Driver]


class Death(BaseException):
    """Stands for SIGKILL: nothing in the process catches it."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def make_driver(request: pytest.FixtureRequest, tiny_study: Callable[..., PreparedStudy]) -> MakeDriver:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None

    def make(changes: dict[str, Any] | None = None, n_trials: int | None = None) -> Driver:
        session = tiny_study(merged({"search": {"storage": url}}, changes or {}))
        return Driver(session.folder, session.space, session.table, session.dense, n_trials)

    return make


def result_of(config: TrialConfig, accuracy: float = 0.5) -> TrialResult:
    cost = Cost(params=100, nonzero_params=100, size_bytes=400, macs=1000 + config.number, latency_ms=0.1)
    return TrialResult(config.number, "finished", accuracy, 1.0, cost, epochs=2, epochs_lineage=2, seed=config.seed)


def suggested(driver: Driver) -> TrialConfig:
    config = driver.suggest()
    assert config is not None
    return config


def dies(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: Callable[..., Any] | None = None) -> None:
    """Let the process die when ``owner.name`` is called, or right after it."""

    def death(*args: Any, **kwargs: Any) -> None:
        if after is not None:
            after(*args, **kwargs)
        raise Death

    monkeypatch.setattr(owner, name, death)


def states(driver: Driver) -> list[TrialState]:
    return [trial.state for trial in driver.study.trials]


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Driver, "_configure"), (SearchSpace, "suggest"), (Trial, "set_user_attr")],
    ids=["after the ask", "before the suggestions", "after the suggestions"],
)
def test_death_before_the_config_is_recorded(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    untouched = make_driver({"search": {"ladder": 0}})
    expected = [suggested(untouched), suggested(untouched)]
    named = untouched.spec.search.storage
    own = sqlalchemy.make_url(f"sqlite:///{untouched.folder.database}")
    url = own if named is None else Database.named(named).url
    storage = RDBStorage(url.render_as_string(hide_password=False))
    optuna.delete_study(study_name="tiny", storage=storage)
    storage.remove_session()
    storage.engine.dispose()

    driver = make_driver()
    with monkeypatch.context() as patch:
        dies(patch, owner, name)
        with pytest.raises(Death):
            driver.suggest()
    driver = make_driver()
    assert states(driver) == [TrialState.WAITING]
    assert [suggested(driver), suggested(driver)] == expected


def test_death_amid_the_suggestions(make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = make_driver({"search": {"ladder": 0}})
    with monkeypatch.context() as patch:
        dies(patch, Trial, "suggest_categorical", after=Trial.suggest_categorical)
        with pytest.raises(Death):
            driver.suggest()
    drawn = driver.study.trials[0].params
    assert len(drawn) == 1
    config = suggested(make_driver())
    assert config.number == 0
    assert config.params.items() > drawn.items()


def test_death_after_the_config_is_recorded(make_driver: MakeDriver) -> None:
    config = suggested(make_driver())
    driver = make_driver()
    assert suggested(driver) == config
    driver.complete(result_of(config))
    assert make_driver().n_told == 1


@pytest.mark.parametrize("ceilings", [{}, {"flops": "2x"}], ids=["free", "ceiling"])
@pytest.mark.parametrize("step", ["set_constraint", "set_user_attr", "tell", "_take_in"])
def test_death_while_a_result_is_told(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch, step: str, ceilings: dict[str, Any]
) -> None:
    driver = make_driver({"constraints": ceilings})
    told = suggested(driver)
    driver.complete(result_of(told, 0.4))
    config = suggested(driver)
    with monkeypatch.context() as patch:
        owner: Any = {"tell": driver.study, "_take_in": driver}.get(step, Trial)
        dies(patch, owner, step, after=getattr(owner, step) if step in ("set_constraint", "set_user_attr") else None)
        if step == "set_constraint" and not ceilings:
            driver.complete(result_of(config))
        else:
            with pytest.raises(Death):
                driver.complete(result_of(config))
    driver = make_driver()
    if driver.n_told == 1:  # it died before the result was recorded: the trial is run again
        assert step == "set_constraint"
        assert suggested(driver) == config
        driver.complete(result_of(config))
    assert driver.n_told == 2
    assert states(driver)[:2] == [TrialState.COMPLETE] * 2
    assert driver.front.members.keys() == {trial.number for trial in driver.study.best_trials} == {0, 1}
    if ceilings:
        assert [trial.constraints for trial in driver.study.trials[:2]] == [{"ceilings": 0.0}] * 2
    assert suggested(driver).number == 2
    assert make_driver().n_told == 2


def test_death_while_the_first_candidates_are_queued(make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna.study import Study

    enqueue, asked = Study.enqueue_trial, []

    def enqueue_once(study: Study, *args: Any, **kwargs: Any) -> None:
        asked.append(kwargs)
        if len(asked) == 2:
            raise Death
        enqueue(study, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Study, "enqueue_trial", enqueue_once)
        with pytest.raises(Death):
            make_driver({"search": {"ladder": 3}})
    driver = make_driver()
    ladder = [trial.user_attrs["autoprune:ladder"] for trial in driver.study.trials]
    assert ladder == pytest.approx([0.8 / 3, 1.6 / 3, 0.8], abs=1e-6)


def test_a_trial_whose_process_dies_too_often_has_failed(make_driver: MakeDriver) -> None:
    changes = {"search": {"max_retries": 2, "ladder": 0}}
    configs = [suggested(make_driver(changes)) for _ in range(3)]
    assert configs[0] == configs[1] == configs[2]
    driver = make_driver()
    assert driver.status().n_failed == 1
    assert states(driver) == [TrialState.FAIL]
    row = driver.frame().iloc[0]
    assert row["error"] == "the process died 3 times while this trial ran"
    assert row["seed"] == configs[0].seed
    assert suggested(driver).number == 1


@pytest.mark.parametrize(("code", "trial"), [(3, 0), (0, 1)])
def test_a_process_that_ended_itself_amid_a_trial_is_told_of(make_driver: MakeDriver, code: int, trial: int) -> None:
    driver = make_driver({"search": {"max_retries": 0, "ladder": 0}})
    if trial == 1:
        driver.complete(result_of(suggested(driver)))
    assert suggested(driver).number == trial
    folder = driver.folder
    pid = os.fork()
    if pid == 0:  # what the inline engine does
        ExitNote(folder.logs).begin(run_name(trial))
        os._exit(code)
    os.waitpid(pid, 0)
    cause = rf"os._exit\({code}\) \(test_search_crash.py:\d+\)"
    (died,) = StudyReader(folder.root).status().deaths.items()
    assert died[0] == f"trial {trial}"
    assert re.fullmatch(cause, died[1])
    again = make_driver()
    error = again.frame()["error"].iloc[trial]
    assert re.fullmatch(f"the process died 1 time while this trial ran, the last time by {cause}", error)
    assert StudyReader(folder.root).status().deaths == {}


def test_a_trial_that_never_got_a_config_has_its_row_too(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make_driver({"search": {"max_retries": 0, "ladder": 0}})
    with monkeypatch.context() as patch:
        dies(patch, Driver, "_configure")
        with pytest.raises(Death):
            driver.suggest()
    driver = make_driver()
    frame = driver.frame()
    assert frame["state"].tolist() == ["failed"]
    assert frame["number"].tolist() == [0]
    assert frame.filter(like="param.").isna().all(axis=None)


def test_an_interrupted_trial_goes_on_under_its_number_and_is_not_blamed(make_driver: MakeDriver) -> None:
    driver = make_driver({"search": {"max_retries": 0}})
    for _ in range(3):
        configs = [suggested(driver), suggested(driver)]
        assert [config.number for config in configs] == [0, 1]
        driver.folder.training_checkpoint(0).write_bytes(b"kept")
        driver.interrupt()
        assert states(driver) == [TrialState.WAITING] * 2
        assert driver.status().running == {}
        driver = make_driver()
        assert states(driver) == [TrialState.WAITING] * 2
        assert driver.folder.training_checkpoint(0).read_bytes() == b"kept"
        assert driver.status().n_failed == 0


def test_a_released_trial_waits_while_the_others_go_on(make_driver: MakeDriver) -> None:
    driver = make_driver()
    first, second = suggested(driver), suggested(driver)
    driver.stop("no data on this machine")
    driver.stop("what came later")
    driver.release(first.number)
    driver.complete(result_of(second))
    assert driver.suggest() is None
    assert driver.stopped_because == "no data on this machine"
    assert states(driver) == [TrialState.WAITING, TrialState.COMPLETE]
    assert suggested(make_driver()) == first
