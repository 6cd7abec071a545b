"""Where trials run: in this process (inline), or on Ray Tune. Only the files named ray_* know Ray."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.config import SpaceFile
from autoprune.errors import AutopruneError, StudyError
from autoprune.search.resources import find_workers

if TYPE_CHECKING:
    from autoprune.search.job_source import JobSource
    from autoprune.search.prepare import PreparedStudy
    from autoprune.search.resources import WorkerResources
    from autoprune.search.run import Engine
    from autoprune.study.folder import StudyFolder

ENGINES = {"ray": ("autoprune.engines.ray_tune", "run_ray"), "inline": ("autoprune.engines.inline", "run_in_process")}
"""Name -> module and function; each runs the trials of a driver until it has no more to give."""


class _RayEngine:
    """Runs trials on Ray, which is loaded when it is needed: that takes long."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options

    def __call__(self, source: "JobSource", study: "PreparedStudy", places: "WorkerResources") -> None:
        _run(*ENGINES["ray"], source, study, places, **self._options)

    def check_worker(self, folder: "StudyFolder", places: "WorkerResources") -> None:
        """Make a first step of training in a worker process; Ray has been started or joined then."""
        _run(ENGINES["ray"][0], "check_ray_worker", folder, places, **self._options)

    def close(self) -> None:
        """End what :meth:`check_worker` started or joined."""
        _run("autoprune.engines.ray_start", "stop")


def load_engine(name: str, address: str | None = None) -> "Engine":
    """Return the engine of this name, which loads what it needs when it is run.

    Args:
        address: Of a running Ray that the engine ``ray`` is to join; ``None`` starts one.

    Raises:
        StudyError: If another engine is to join a Ray, or the address is that of a Ray Client.
    """
    if address is not None and name != "ray":
        raise StudyError(f"--address goes with --engine ray, got --engine {name}. Leave one of them out.")
    if address is not None and "://" in address:
        raise StudyError(
            f"--address must be auto or HOST:PORT, got {address}: the search writes the study itself, so it can't run "
            "through a Ray Client. Run it on a machine of the cluster."
        )
    if name == "ray" and address is None:
        # Read when Ray is imported: its processes listen on loopback only, for which `_node_ip_address` alone is not
        # enough. A Ray that is joined has the addresses of its nodes.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as Ray does, but not while other threads run: see ray_private
    if name == "ray":
        return _RayEngine({} if address is None else {"address": address})
    return partial(_run, *ENGINES[name])


def _run(module: str, function: str, *args: Any, **options: Any) -> None:
    """Load an engine and run it: not before, as it takes long."""
    engine: Callable[..., None] = getattr(import_module(module), function)
    engine(*args, **options)


@contextmanager
def started_early(name: str, address: str | None, file: SpaceFile | None, results: Path) -> Iterator[None]:
    """Let an engine that takes seconds to start do so while all else is loaded.

    It does not where that would be in vain: the space file has mistakes, or the study has been at its end before.

    Args:
        file: The space file; ``None`` if it has mistakes.
    """
    workers = None
    if name == "ray" and address is None and file is not None:
        with suppress(AutopruneError):  # run_search finds it again
            if not (results / file.config.study / "test.json").exists():
                workers, _ = find_workers(file.config.resources)
    if workers is None:
        yield
        return
    from autoprune.engines.ray_start import started

    with started(workers):
        yield


__all__ = ["ENGINES", "load_engine", "started_early"]
