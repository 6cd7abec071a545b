"""A Ray for this process alone, started early: it takes seconds, in which all else is loaded."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

from autoprune.engines import ray_private  # first: it sets what Ray reads when it is imported

# isort: split
import ray

from autoprune.search.signals import Preempted, raise_when_preempted


def start(workers: int) -> None:
    """Start a Ray of one process for each worker, which loads what trials need at once, unless there is one already.

    ``load_engine`` has seen to it that it listens on loopback only.
    """
    if ray.is_initialized():
        return
    try:
        with ray_private.without_monitors():
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


def stop() -> None:
    """End the Ray that was started, or leave the one that was joined, if that has not been done."""
    ray.shutdown()


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
