"""A signal waits for a change to be written, is raised once, and the second one ends the process."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from autoprune.errors import Interrupted
from autoprune.search import signals
from autoprune.search.signals import (
    EXIT_INTERRUPTED,
    EXIT_REQUEUE,
    Preempted,
    SignalGuard,
    handlers_restored,
    raise_when_preempted,
)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    hook = sys.unraisablehook
    yield
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):  # a signal is still to be sent again
            thread.join()
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


def taken() -> list[Any]:
    """What is in place for each of the signals, and for what Python can't pass on."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    return [*(signal.getsignal(number) for number in numbers), sys.unraisablehook]


class Signalling:
    """What Python finalises while a signal comes: it can't pass on what the signal's handler raises."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


def finalise_and_work_on(number: signal.Signals) -> None:
    Signalling(number)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(0.01)


def test_outside_a_change_it_is_raised_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), SignalGuard().catching():
        signal.raise_signal(signal.SIGINT)


def test_within_a_change_it_is_raised_when_the_change_is_written() -> None:
    section, reached = SignalGuard(), []

    def change() -> None:
        with section:
            with section:
                signal.raise_signal(signal.SIGINT)
                reached.append("inner")
            reached.append("outer")
        reached.append("after")

    with pytest.raises(KeyboardInterrupt), section.catching():
        change()
    assert reached == ["inner", "outer"]


def test_what_is_written_while_winding_down_is_not_interrupted_again() -> None:
    section = SignalGuard()
    with pytest.raises(KeyboardInterrupt), section.catching():
        signal.raise_signal(signal.SIGINT)
    with section:
        written = True
    assert written


def test_a_library_that_raises_its_own_in_place_does_not_hide_which_signal_came() -> None:
    def library() -> None:
        try:
            signal.raise_signal(signal.SIGUSR1)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None

    with pytest.raises(Preempted), SignalGuard().catching():
        library()


def test_without_ctrl_c_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with SignalGuard().catching():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_put_back_is_what_was_there_before() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    before = taken()
    with handlers_restored():
        raise_when_preempted()
        with pytest.raises(KeyboardInterrupt), SignalGuard().catching():
            signal.raise_signal(signal.SIGINT)
        assert taken() != before
    assert taken() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_that_comes_while_an_object_is_finalised_is_not_lost(number: signal.Signals) -> None:
    expected = Interrupted if number == signal.SIGINT else Preempted
    with pytest.raises(KeyboardInterrupt) as caught, SignalGuard().catching():
        finalise_and_work_on(number)
    assert type(caught.value) is expected


def test_nor_amid_a_change() -> None:
    section, written = SignalGuard(), []

    def change() -> None:
        with section:
            Signalling(signal.SIGUSR1)
            written.append(1)

    with pytest.raises(Preempted), section.catching():
        change()
    assert written == [1]


def test_nor_is_it_with_nothing_left_to_do() -> None:
    with pytest.raises(Preempted), SignalGuard().catching():
        Signalling(signal.SIGUSR1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_nor_is_it_before_the_trials(number: signal.Signals) -> None:
    raise_when_preempted()
    raise_when_preempted()
    with pytest.raises(KeyboardInterrupt) as caught:
        finalise_and_work_on(number)
    assert type(caught.value) is (Interrupted if number == signal.SIGINT else Preempted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("guarded", [False, True])
def test_nor_is_it_where_the_machine_is_too_busy_to_send_it_again_in_time(
    number: signal.Signals, guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, n_started = threading.Thread.start, 0

    def start_late(thread: threading.Thread) -> None:
        nonlocal n_started
        n_started += 1
        start(thread)
        if n_started <= 2:
            time.sleep(2 * signals.RETRY_S)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    if not guarded:
        raise_when_preempted()
    with pytest.raises(KeyboardInterrupt) as caught, SignalGuard().catching() if guarded else nullcontext():
        finalise_and_work_on(number)
    assert type(caught.value) is (Interrupted if number == signal.SIGINT else Preempted)


def test_nor_is_one_that_a_librarys_handler_raised_meanwhile() -> None:
    def library(section: SignalGuard) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        Signalling(signal.SIGINT)
        section.install()
        time.sleep(10)

    section = SignalGuard()
    with pytest.raises(KeyboardInterrupt), section.catching():
        library(section)


def test_what_else_is_ignored_is_told_as_before() -> None:
    class Failing:
        def __del__(self) -> None:
            raise ValueError("ignored")

    told: list[str] = []
    sys.unraisablehook = lambda unraisable: told.append(str(unraisable.exc_value))
    before = sys.unraisablehook
    with SignalGuard().catching():
        Failing()
    assert told == ["ignored"]
    assert sys.unraisablehook is before


@pytest.mark.parametrize(("first", "code"), [("SIGINT", EXIT_INTERRUPTED), ("SIGUSR1", EXIT_REQUEUE)])
@pytest.mark.parametrize("where", ["with section:", "if True:"], ids=["amid a change", "winding down"])
@pytest.mark.parametrize("lost", [False, True], ids=["", "the first one while an object is finalised"])
def test_the_second_one_ends_the_process_at_once(where: str, lost: bool, first: str, code: int) -> None:
    work = "Signalling(); time.sleep(10)" if lost else f"with section: signal.raise_signal(signal.{first})"
    program = f"""
import signal, time
from autoprune.search.signals import SignalGuard
class Signalling:
    def __del__(self):
        signal.raise_signal(signal.{first})
section = SignalGuard()
try:
    with section.catching():
        {work}
except KeyboardInterrupt:
    pass
{where}
    signal.raise_signal(signal.SIGINT)
print("survived")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == "\nended at once; the same command goes on.\n"
