"""Ray still is as ray_private takes it to be; a failure here names the part that an upgrade of Ray has changed."""

import inspect
from pathlib import Path

import pytest

from autoprune.engines import ray_private

# isort: split
import ray
from ray._private import parameter, worker
from ray.air.execution._internal import RayActorManager
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController

CHANGED = f"Ray {ray.__version__} changed %s: adapt engines/ray_private.py, or bound ray"
ROOT = Path(ray.__file__).parent
READ_IN = {
    "RAY_USAGE_STATS_ENABLED": "_common/usage/usage_constants.py",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "_private/ray_constants.py",
    "RAY_AIR_NEW_OUTPUT": "tune/experimental/output.py",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "tune/execution/tune_controller.py",
    "TUNE_DISABLE_SIGINT_HANDLER": "tune/tune.py",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "tune/utils/callback.py",
    "TUNE_GLOBAL_CHECKPOINT_S": "tune/execution/tune_controller.py",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "tune/execution/experiment_state.py",
    "TUNE_MAX_PENDING_TRIALS_PG": "tune/execution/tune_controller.py",
    "TUNE_ORIG_WORKING_DIR": "tune/trainable/trainable.py",
    "PYTHONBREAKPOINT": "_private/worker.py",
}
OF_OTHER_PACKAGES = {"OPENBLAS_MAIN_FREE", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}


@pytest.mark.parametrize("name", sorted((ray_private.READ_BY_RAY | ray_private.ADDED_LATER).keys() - OF_OTHER_PACKAGES))
def test_ray_still_reads_the_variable(name: str) -> None:
    if name in READ_IN:
        found = name.encode() in (ROOT / READ_IN[name]).read_bytes()
    else:  # a setting of its C++ part
        found = name.removeprefix("RAY_").encode() in (ROOT / "core/src/ray/raylet/raylet").read_bytes()
    assert found, CHANGED % name


def test_ray_still_makes_its_parameters_where_they_are_replaced() -> None:
    assert {"no_monitor", "include_log_monitor"} <= inspect.signature(parameter.RayParams).parameters.keys(), (
        CHANGED % "RayParams"
    )
    assert "ray._private.parameter.RayParams(" in inspect.getsource(worker.init), CHANGED % "how init makes RayParams"
    kind = parameter.RayParams
    with ray_private.without_monitors():
        assert parameter.RayParams(include_log_monitor=True).no_monitor is True
    assert parameter.RayParams is kind


def test_tune_still_asks_for_the_variables_that_are_cleared() -> None:
    get = inspect.getsource(class_cache._ActorClassCache.get)
    for name in ("DEFAULT_ENV_VARS", "ENV_VARS_TO_PROPAGATE"):
        assert hasattr(class_cache, name), CHANGED % name
        assert name in get, CHANGED % name


def test_tune_still_reuses_workers_by_the_method_that_is_replaced() -> None:
    name = "_maybe_reuse_cached_actor"
    assert list(inspect.signature(getattr(TuneController, name)).parameters)[1:] == ["trial"], CHANGED % name
    source = inspect.getsource(TuneController)
    assert f"self.{name}(trial)" in source, CHANGED % name
    assert "self._trial_to_actor[trial] = " in source, CHANGED % "_trial_to_actor"
    assert "self._actor_manager = RayActorManager(" in source, CHANGED % "_actor_manager"
    assert hasattr(RayActorManager, "is_actor_started"), CHANGED % "is_actor_started"
