"""One run of ``benchmarks.driver_overhead``, in a process of its own: so many trials of a study, dispatched one way.

All ways suggest from the same space and run the same worker; what differs is who hands out the trials. Prints the CPU
time and the memory of this process, the dispatching one, as JSON.
"""

import argparse
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

MIB = 2**20


class Memory:
    """Resident memory of this process when it has seen a number of trials end."""

    def __init__(self) -> None:
        self.n_ended, self.mib = 0, dict[int, float]()

    def count(self) -> None:
        self.n_ended += 1
        if self.n_ended in (100, 1000):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.mib[self.n_ended] = pages * os.sysconf("SC_PAGE_SIZE") / MIB


class Timed:
    """A driver whose every call is timed and passed on."""

    def __init__(self, driver: Any, memory: Memory) -> None:
        self._driver, self._memory = driver, memory
        self.cpu_s = self.wall_s = 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._driver, name)
        if name not in ("suggest", "report", "complete"):
            return found

        def timed(*args: Any) -> Any:
            cpu, wall = time.process_time(), time.monotonic()
            try:
                return found(*args)
            finally:
                self.cpu_s += time.process_time() - cpu
                self.wall_s += time.monotonic() - wall
                if name == "complete":
                    self._memory.count()

        return timed


def autoprune(root: Path, n_trials: int, memory: Memory) -> dict[str, float]:
    from autoprune.engines import load_engine, started_early

    told: list[Any] = []

    def engine(driver: Any, folder: Any, places: Any) -> None:
        told.append(Timed(driver, memory))
        load_engine("ray")(told[0], folder, places)

    with started_early("ray", None, root / "space.yaml", root / "results"):
        from autoprune.search.run import run_search

        run_search(root / "space.yaml", root / "results", engine, n_trials)
    return {"driver_cpu_s": told[0].cpu_s, "driver_wall_s": told[0].wall_s}


def _session(root: Path) -> tuple[Any, Any]:
    import optuna
    import torch

    from autoprune.search.prepare import reopen_study
    from autoprune.study.folder import StudyFolder
    from autoprune.worker import Worker

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    session = reopen_study(StudyFolder(root / "results" / "overhead"))
    return session, Worker(session.folder)


def _values(worker: Any, config: Any) -> tuple[float, float]:
    """Run a trial; accuracy and FLOPs."""
    *_, result = worker.run(config)
    if result.cost is None:
        raise RuntimeError(result.error)
    return result.metric, float(result.cost.flops)


def _study(root: Path) -> Any:
    import optuna

    return optuna.create_study(
        storage=f"sqlite:///{root / 'peer.db'}",
        study_name="peer",
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.RandomSampler(seed=os.getpid()),
        load_if_exists=True,
    )


def optuna_threads(root: Path, n_trials: int, memory: Memory) -> dict[str, float]:
    session, worker = _session(root)

    def objective(trial: Any) -> tuple[float, float]:
        return _values(worker, session.space.suggest(trial, trial.number))

    _study(root).optimize(objective, n_trials, n_jobs=2, callbacks=[lambda *_: memory.count()])
    return {}


def _one_trial(root: Path) -> None:
    session, worker = _session(root)
    _study(root).optimize(lambda trial: _values(worker, session.space.suggest(trial, trial.number)), n_trials=1)


def optuna_processes(root: Path, n_trials: int, memory: Memory) -> dict[str, float]:
    _study(root)
    spawning = multiprocessing.get_context("spawn")

    def run_one(_: int) -> None:
        process = spawning.Process(target=_one_trial, args=(root,))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a trial's process ended with exit code {process.exitcode}")
        memory.count()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run_one, range(n_trials)))
    return {}


@cache
def _space(root: Path) -> Any:
    return _session(root)[0].space


def _suggested(root: Path, trial: Any) -> None:
    """Define by run, and pickled again and again: what a trial suggests is what Tune hands to its worker."""
    _space(root).suggest(trial, 0)


def ray_tune(root: Path, n_trials: int, memory: Memory) -> dict[str, float]:
    import optuna
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    _space(root)

    class Ended(tune.Callback):
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            memory.count()

    def trainable(params: dict[str, Any]) -> None:
        from optuna.trial import FixedTrial

        session, worker = _session(root)
        number = int(tune.get_context().get_trial_id().split("_")[-1], 16)
        config = session.space.suggest(FixedTrial(params, number=number), number)
        tune.report(dict(zip(("accuracy", "flops"), _values(worker, config), strict=True)))

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    tune.Tuner(
        tune.with_resources(trainable, {"CPU": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                space=partial(_suggested, root),
                metric=["accuracy", "flops"],
                mode=["max", "min"],
                sampler=optuna.samplers.RandomSampler(seed=0),
            ),
            num_samples=n_trials,
        ),
        run_config=tune.RunConfig(storage_path=str(root / "tune"), verbose=0, callbacks=[Ended()]),
    ).fit()
    ray.shutdown()
    return {}


WAYS: dict[str, Callable[[Path, int, Memory], dict[str, float]]] = {
    "autoprune": autoprune,
    "Optuna, n_jobs=2": optuna_threads,
    "Optuna, a process a trial": optuna_processes,
    "Ray Tune, OptunaSearch": ray_tune,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("root", type=Path)
    parser.add_argument("n_trials", type=int)
    args = parser.parse_args()
    memory = Memory()
    found = WAYS[args.way](args.root, args.n_trials, memory)
    rss = {f"rss_mib_{count}": mib for count, mib in memory.mib.items()}
    print(json.dumps({"process_cpu_s": time.process_time(), **found, **rss}))


if __name__ == "__main__":
    main()
