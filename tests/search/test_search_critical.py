"""A signal waits for a change to be written, is raised once, and the second one ends the process."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from autoprune.search.critical import EXIT_INTERRUPTED, EXIT_REQUEUE, CriticalSection, MachineTaken


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_outside_a_change_it_is_raised_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), CriticalSection().catching():
        signal.raise_signal(signal.SIGINT)


def test_within_a_change_it_is_raised_when_the_change_is_written() -> None:
    section, reached = CriticalSection(), []

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
    section = CriticalSection()
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

    with pytest.raises(MachineTaken), CriticalSection().catching():
        library()


def test_without_ctrl_c_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with CriticalSection().catching():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("first", "code"), [("SIGINT", EXIT_INTERRUPTED), ("SIGUSR1", EXIT_REQUEUE)])
@pytest.mark.parametrize("where", ["with section:", "if True:"], ids=["amid a change", "winding down"])
def test_the_second_one_ends_the_process_at_once(where: str, first: str, code: int) -> None:
    program = f"""
import signal
from autoprune.search.critical import CriticalSection
section = CriticalSection()
try:
    with section.catching(), section:
        signal.raise_signal(signal.{first})
except KeyboardInterrupt:
    pass
{where}
    signal.raise_signal(signal.SIGINT)
print("survived")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == "\nended at once; the same command goes on.\n"
