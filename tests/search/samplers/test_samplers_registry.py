"""Every sampler a space file can name: same seed, same study, however often it was interrupted."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from tiny import TINY_TASK

from autoprune.config.search import SAMPLERS as NAMED_IN_SPEC
from autoprune.errors import ConfigError
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.search.samplers.registry import SAMPLERS, load_sampler, make_sampler
from autoprune.study.seeds import derive_seed
from autoprune.trial import Cost, Scalar, TrialResult

N_TRIALS = 12  # more than the 10 that TPE and GP draw at random first


def few_dimensions(sampler: str, seed: int = 0) -> dict[str, Any]:
    return {
        "training": {"lr_schedule": {"kind": "constant", "lr": {"low": 0.01, "high": 0.1, "log": True}}},
        "pruning": [{"method": "neuron", "criterion": ["l1", "l2"]}],
        "constraints": {"flops": "0.9x"},
        "search": {"sampler": sampler, "seed": seed, "ladder": 1, "trials": N_TRIALS, "sensitivity": False},
    }


def run(open_driver: Callable[[], Driver], session_lengths: list[int]) -> list[dict[str, Scalar]]:
    """Run a study to its end, in sessions of so many trials, and give back what was suggested."""
    for length in session_lengths:
        driver = open_driver()
        for _ in range(length):
            config = driver.suggest()
            assert config is not None
            params = config.params
            accuracy = 0.9 - 0.1 * float(params["neuron.ratio.stem"]) ** 2 - float(params["lr_schedule.constant.lr"])
            macs = driver.table.cost(config.pruning.widths).macs
            cost = Cost(params=1, nonzero_params=1, size_bytes=1, macs=macs)
            driver.complete(TrialResult(config.number, "finished", accuracy, 1.0, cost, seed=config.seed))
        if length < N_TRIALS:
            if len(driver._running) == 0:
                driver.suggest()  # cut off while this one runs
            driver.interrupt()
    assert driver.suggest() is None
    return [{**trial.params, "seed": trial.number} for trial in driver.study.trials]


def test_the_spec_names_the_samplers_that_there_are() -> None:
    assert set(NAMED_IN_SPEC) == {"auto", *SAMPLERS}


@pytest.mark.parametrize(
    "sampler",
    [
        "cost_aware",
        "random",
        "tpe",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("gp", "nsga2", "nsga3", "qmc")),
    ],
)
def test_an_interrupted_study_goes_on_as_it_would_have(tiny_study: Callable[..., PreparedStudy], sampler: str) -> None:
    def opener(name: str) -> Callable[[], Driver]:
        def open_driver() -> Driver:
            session = tiny_study(few_dimensions(sampler), name)
            return Driver(session.folder, session.space, session.table, session.dense)

        return open_driver

    whole = run(opener("whole"), [N_TRIALS])
    assert run(opener("cut"), [2, 9, 1]) == whole
    assert len(whole) >= N_TRIALS
    assert len({tuple(sorted(trial.items())) for trial in whole}) == len(whole)


def test_another_seed_gives_another_study(tiny_study: Callable[..., PreparedStudy]) -> None:
    studies = []
    for seed in (0, 1):
        session = tiny_study(few_dimensions("auto", seed), str(seed))
        driver = Driver(session.folder, session.space, session.table, session.dense)
        configs = [driver.suggest() for _ in range(8)]
        studies.append([config.params for config in configs if config is not None])
        assert len({config.seed for config in configs if config is not None}) == 8
    assert studies[0][0] == studies[1][0]  # the ladder
    assert studies[0][1:] != studies[1][1:]


def test_seeds_are_in_range_and_of_one_trial_and_purpose_each() -> None:
    seeds = [
        derive_seed(study, number, purpose)
        for study in range(5)
        for number in range(200)
        for purpose in ("trial", "sampler")
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derive_seed(3, 4, "trial") == derive_seed(3, 4, "trial")


def test_points_of_a_sequence_share_one_seed(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study()
    driver = Driver(session.folder, session.space, session.table, session.dense)
    first, second = (make_sampler("qmc", SAMPLERS["qmc"], 7, number, driver._knowledge) for number in (0, 1))
    assert first._seed == second._seed  # type: ignore[attr-defined]


def test_a_sampler_of_the_user_s_own(tiny_study: Callable[..., PreparedStudy]) -> None:
    task = TINY_TASK + "\n\nimport optuna\n\n\ndef mine(seed):\n    return optuna.samplers.RandomSampler(seed=seed)\n"
    task += "\n\ndef no_sampler(seed):\n    return seed\n"
    session = tiny_study({"search": {"sampler": "tiny_task:mine", "ladder": 0}}, "mine", task)
    driver = Driver(session.folder, session.space, session.table, session.dense)
    assert driver.suggest() is not None
    assert isinstance(driver.study.sampler, optuna.samplers.RandomSampler)
    with pytest.raises(ConfigError, match=r"search\.sampler: tiny_task:no_sampler must give an optuna\S+, got int"):
        load_sampler("tiny_task:no_sampler", session.folder.base_dir)
