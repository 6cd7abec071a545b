"""A candidate that an earlier trial has run is not run again, and a space that is searched to its end is left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import run_well
from tiny import TINY_TASK, copy_study
from typing_extensions import TypeIs

from autoprune.engines.inline import run_in_process
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.search.repeats import ASKED_AGAIN, GIVEN_UP
from autoprune.search.run import run_search
from autoprune.trial import TrialConfig, TrialResult

Study = Callable[..., PreparedStudy]

FOUR: dict[str, Any] = {
    "training": {
        "epochs": 1,
        "lr_schedule": {"kind": "constant", "lr": [0.02, 0.05]},
        "batch_size_schedule": {"size": 32},
    },
    "pruning": [{"method": "layer", "ratio": [0.0, 0.5]}],
    "search": {"trials": 9, "start": "dense", "ladder": 0},
}
"""Changes to the tiny study after which its space holds four candidates."""


def drawn_by(sampler: str, **search: Any) -> dict[str, Any]:
    return {**FOUR, "search": {**FOUR["search"], "sampler": sampler, **search}}


def open_driver(session: PreparedStudy) -> Driver:
    return Driver(session.folder, session.space, session.table, session.dense)


def is_trial(config: TrialConfig | None) -> TypeIs[TrialConfig]:
    return config is not None


def shape(config: TrialConfig) -> tuple[object, ...]:
    return (config.lr_schedule.params["lr"], tuple(sorted(config.pruning.removed_blocks)))


@pytest.mark.parametrize(
    "sampler", ["random", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tpe", "nsga2"))]
)
def test_every_candidate_runs_once_and_then_the_search_ends(
    trained_tiny: Path, tmp_path: Path, brief_latency: None, sampler: str
) -> None:
    space, study = copy_study(trained_tiny, tmp_path, drawn_by(sampler)), tmp_path / "results" / "tiny"
    out = run_well("search", space, "--engine", "inline", cwd=tmp_path).out
    assert "the space holds no other candidate: 4 of 9 trials." in out

    frame = pd.read_parquet(study / "trials.parquet")
    ran, repeats = (frame[frame["state"] == state] for state in ("finished", "repeated"))
    searched = [name for name in ran if name.startswith("param.")]
    assert len(searched) == 2
    assert not ran.duplicated(searched).any()
    assert len(ran) == 4
    assert len(repeats) == len(frame) - 4 >= GIVEN_UP
    assert set(repeats["error"].str.removeprefix("the same as trial ").astype(int)) <= set(ran["number"])

    told = run_well("status", study, cwd=tmp_path).out
    assert "4 of 9 trials have ended" in told
    assert f"{len(repeats)} repeated" in told
    again = run_search(space, tmp_path / "results", run_in_process)
    assert again.was_complete
    assert again.driver.status().n_repeated == len(repeats)


def test_a_candidate_that_runs_now_is_not_given_out_twice_even_after_a_kill(tiny_study: Study) -> None:
    session = tiny_study(drawn_by("random"))
    first = open_driver(session).suggest()
    driver = open_driver(session)
    running = [config for config in (driver.suggest() for _ in range(6)) if is_trial(config)]
    assert running[0] == first
    assert len({shape(config) for config in running}) == len(running) == 4
    assert not driver.is_complete, "while trials run, one may fail and be tried again"


def test_a_candidate_that_failed_may_be_tried_again(tiny_study: Study) -> None:
    driver = open_driver(tiny_study(drawn_by("random", max_failures=50)))
    shapes = []
    for _ in range(9):
        config = driver.suggest()
        assert is_trial(config)
        shapes.append(shape(config))
        driver.fail(config.number, "OSError: no room")
    assert len(set(shapes)) < len(shapes)
    assert driver.status().n_repeated == 0


def test_a_sampler_that_has_but_one_idea_is_replaced_for_a_while(tiny_study: Study, tmp_path: Path) -> None:
    single = """

def stubborn(seed):
    import optuna

    class Stubborn(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            return distribution.choices[0]

    return Stubborn(seed)
"""
    driver = open_driver(tiny_study(drawn_by("tiny_task:stubborn"), task=TINY_TASK + single))
    first, second = driver.suggest(), driver.suggest()
    assert is_trial(first)
    assert is_trial(second)
    assert shape(first) != shape(second)
    assert second.number > ASKED_AGAIN
    driver.complete(TrialResult(first.number, "stopped", seed=first.seed))
    assert driver.status().n_repeated == second.number - 1
