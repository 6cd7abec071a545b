"""A Ray for this process alone, started early: it takes seconds, in which all else is loaded."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module

# Read when Ray is imported. It prints nothing of its own, keeps no state on disk (the study is the truth), and leaves
# Ctrl-C to the driver. What is left of it when it had to be killed ends after seconds, not after a minute.
os.environ |= {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    "RAY_idle_worker_killing_time_threshold_ms": "600000",  # a worker counts as idle while it loads
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # What the worker processes of a Ray that this process starts load before they are given a trial.
    "RAY_preload_python_modules": "autoprune.engines.ray_tune,autoprune.worker",
}

# What numpy, scikit-learn, Ray and its Tune would add while several threads run, here or in the workers. An added
# variable may move all of them, and a thread that reads one from C at that moment ends the process with a segmentation
# fault; one that is there is changed in place.
os.environ |= {
    "OPENBLAS_MAIN_FREE": "1",
    "KMP_DUPLICATE_LIB_OK": "True",
    "KMP_INIT_AT_FORK": "FALSE",
    "PYTHONBREAKPOINT": "",
    "TUNE_MAX_PENDING_TRIALS_PG": "auto",
    "TUNE_ORIG_WORKING_DIR": "",
} | os.environ

import ray
from ray._private import parameter

from autoprune.search.signals import Preempted, raise_when_preempted


def start(workers: int) -> None:
    """Start a Ray of one process for each worker, which loads what trials need at once, unless there is one already.

    ``load_engine`` has seen to it that it listens on loopback only.
    """
    if ray.is_initialized():
        return
    try:
        with _without_what_nobody_reads():
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
            )
    except SystemExit:  # Ray's own SIGTERM handler, in place until the search takes the signal over again
        raise Preempted from None


@contextmanager
def _without_what_nobody_reads() -> Iterator[None]:
    """Start no monitor of an autoscaler and none of logs, two Python processes; ``ray.init`` gives no choice."""
    kind = parameter.RayParams  # the types: Ray says that its flag is a text, and a partial stands in for the class
    fewer = partial(kind, no_monitor=True, include_log_monitor=False)  # type: ignore[arg-type]
    parameter.RayParams = fewer  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        parameter.RayParams = kind  # type: ignore[misc]


@contextmanager
def started(workers: int) -> Iterator[None]:
    """Start Ray while what a search needs is loaded; it has ended after the context."""
    # Not the other way round: Ray's processes end with the thread that started them.
    loading = threading.Thread(target=_load)
    try:
        loading.start()
        start(workers)
        raise_when_preempted()
        yield
    finally:
        ray.shutdown()
        loading.join()


def _load() -> None:
    with suppress(Exception):  # the search loads the same, and tells what is wrong
        import_module("autoprune.search.run")
        import_module("autoprune.engines.ray_tune")
