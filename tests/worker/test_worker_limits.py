"""Limits hold while a trial works, not between its events, and leave the process as it was."""

import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from autoprune.worker.limits import GIB, Limits, TrialTimeout


def sleeping(*seconds: float) -> Iterator[int]:
    for number, each in enumerate(seconds):
        time.sleep(each)
        yield number


def is_untouched() -> bool:
    return (
        signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
        and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        and resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
    )


def test_no_limit_changes_nothing() -> None:
    assert list(Limits().around(sleeping(0, 0, 0))) == [0, 1, 2]
    assert is_untouched()


def test_time_is_that_of_all_events_together_and_of_nothing_in_between() -> None:
    events = Limits(timeout_s=0.5).around(sleeping(0.2, 0.2, 60))
    for number in range(2):
        assert next(events) == number
        assert is_untouched()
        time.sleep(0.4)
    began = time.monotonic()
    with pytest.raises(TrialTimeout, match=r"search.trial_timeout of 0.5 s is over"):
        next(events)
    assert time.monotonic() - began < 5
    assert is_untouched()


def test_the_place_that_was_interrupted_is_told() -> None:
    limits = Limits(timeout_s=0.1)
    with pytest.raises(TrialTimeout) as caught:
        list(limits.around(sleeping(60)))
    line = sleeping.__code__.co_firstlineno + 2
    assert limits.describe(caught.value) == (
        f"TrialTimeout: search.trial_timeout of 0.1 s is over (test_worker_limits.py:{line})"
    )


def swallowing_once() -> Iterator[int]:
    for _ in range(2):
        try:
            time.sleep(60)
        except Exception:
            yield 0
        except BaseException:
            if _ == 1:
                raise


def test_a_trial_that_catches_it_is_told_again() -> None:
    began = time.monotonic()
    with pytest.raises(TrialTimeout):
        list(Limits(timeout_s=0.1).around(swallowing_once()))
    assert 1 < time.monotonic() - began < 5
    assert is_untouched()


def test_beside_the_main_thread_there_is_no_alarm() -> None:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(Limits(timeout_s=0.01).around(sleeping(0.1))))
    thread.start()
    thread.join()
    assert seen == [0]


@pytest.mark.parametrize("ask", [lambda: bytearray(GIB), lambda: torch.empty(GIB // 2)], ids=["Python", "torch"])
def test_memory_over_the_limit_is_refused_and_told(ask: Callable[[], object]) -> None:
    def eat() -> Iterator[int]:
        yield 0
        ask()

    limits = Limits(memory_gib=0.5)
    events = limits.around(eat())
    assert next(events) == 0
    assert is_untouched()
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        next(events)
    assert limits.describe(caught.value).startswith("over resources.memory_per_trial_gib = ")
    assert is_untouched()
    assert ask() is not None


def test_other_errors_are_no_matter_of_memory() -> None:
    assert Limits(memory_gib=1.0).describe(ValueError("no")) == "ValueError: no"
