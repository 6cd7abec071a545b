"""All that leans on private parts of Ray, and the environment variables that it reads: each with its reason.

Importing this sets the variables and loads no Ray, which reads some of them when it is imported. The tests of this file
say which part an upgrade of Ray broke.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

READ_BY_RAY = {
    "RAY_idle_worker_killing_time_threshold_ms": "600000",  # a worker counts as idle while it loads
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # what is left of a Ray that was killed ends soon, not in a minute
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anyone
    # What the worker processes of a Ray that this process starts load before they are given a trial.
    "RAY_preload_python_modules": "autoprune.engines.ray_tune,autoprune.worker",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # Ray itself prints nothing here, such as that a worker died
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune prints nothing of its own
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the driver tells what failed
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is the driver's
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no state on disk: the study is the truth
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",  # the one state at the end comes soon
}
"""Variables that change what Ray does."""

ADDED_LATER = {
    "OPENBLAS_MAIN_FREE": "1",
    "KMP_DUPLICATE_LIB_OK": "True",
    "KMP_INIT_AT_FORK": "FALSE",
    "PYTHONBREAKPOINT": "",
    "TUNE_MAX_PENDING_TRIALS_PG": "auto",
    "TUNE_ORIG_WORKING_DIR": "",
}
"""What numpy, scikit-learn, Ray and its Tune would add while several threads run, here or in the workers.

An added variable may move all of them, and a thread that reads one from C at that moment ends the process with a
segmentation fault; one that is there is changed in place.
"""

os.environ |= READ_BY_RAY
os.environ |= ADDED_LATER | os.environ

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


@contextmanager
def without_monitors() -> Iterator[None]:
    """Start no monitor of an autoscaler and none of logs, two Python processes; ``ray.init`` gives no choice."""
    from ray._private import parameter

    kind = parameter.RayParams  # the types: Ray says that its flag is a text, and a partial stands in for the class
    fewer = partial(kind, no_monitor=True, include_log_monitor=False)  # type: ignore[arg-type]
    parameter.RayParams = fewer  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        parameter.RayParams = kind  # type: ignore[misc]


def use_the_processes_that_are_ready() -> None:
    """Have Tune put trials into Ray's processes as they are.

    It asks for processes with environment variables of its own, which Ray then starts anew. Those of a Ray that this
    process started have its environment.
    """
    from ray.tune.execution import class_cache  # not above: it takes long, and Ray starts meanwhile

    class_cache.DEFAULT_ENV_VARS.clear()
    class_cache.ENV_VARS_TO_PROPAGATE.clear()


def leave_a_trial_to_the_worker_that_starts_for_it() -> None:
    """Change how Tune reuses workers: a trial for which a worker is being started is left to that worker.

    Tune gives the trial to the next worker that is free, and ends the one that starts. So with trials shorter than the
    start of a worker, one that has died would never be replaced.
    """
    from ray.tune.execution.tune_controller import TuneController

    reuse = TuneController._maybe_reuse_cached_actor
    if getattr(reuse, "unless_one_starts", False):
        return

    def reuse_unless_one_starts(controller: TuneController, trial: "Trial") -> bool:
        worker = controller._trial_to_actor.get(trial)
        if worker is not None and controller._actor_manager.is_actor_started(worker):  # it has its resources
            return False
        return reuse(controller, trial)

    reuse_unless_one_starts.unless_one_starts = True  # type: ignore[attr-defined]
    TuneController._maybe_reuse_cached_actor = reuse_unless_one_starts  # type: ignore[method-assign, assignment]
