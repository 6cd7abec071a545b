"""The errors' texts."""

import signal
import threading
from collections.abc import Iterator

import pytest

import autoprune.errors as errors
from autoprune.errors import AutopruneError, ConfigError, Interrupted, describe_error, is_interrupt, unknown_name


def test_every_error_is_one_of_ours() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 6
    assert all(issubclass(kind, AutopruneError) for kind in kinds)


def test_spec_error_carries_every_problem() -> None:
    error = ConfigError(["a:1: x", "a:2: y"])
    assert error.problems == ("a:1: x", "a:2: y")
    assert str(error) == "a:1: x\na:2: y"


def test_unknown_name_hints_at_the_nearest_and_lists_all() -> None:
    assert unknown_name("animal", "hose", ["cow", "horse"]) == (
        "unknown animal 'hose' (did you mean 'horse'?). Known: cow, horse."
    )
    assert unknown_name("animal", "x", iter(["cow", "horse"])) == "unknown animal 'x'. Known: cow, horse."


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_describe_error_is_one_line_with_the_place() -> None:
    line = raised.__code__.co_firstlineno + 2
    assert describe_error(raised(ValueError("loss is\n   nan"))) == f"ValueError: loss is nan (test_errors.py:{line})"
    assert describe_error(raised(KeyError())) == f"KeyError (test_errors.py:{line})"
    assert describe_error(MemoryError("never raised")) == "MemoryError: never raised"


def test_describe_error_shows_what_a_terminal_would_obey_and_keeps_brackets() -> None:
    text = "[/bold] of shape [3, 4] \x1b[2J\x07 café"
    assert describe_error(ValueError(text)) == "ValueError: [/bold] of shape [3, 4] \\x1b[2J\\x07 café"


def test_describe_error_takes_an_error_that_cannot_be_shown() -> None:
    class OddError(ValueError):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class EmptyError(ValueError):
        __str__ = None  # type: ignore[assignment]

    assert describe_error(OddError()) == "OddError"
    assert describe_error(EmptyError()) == "EmptyError"


def test_a_stop_iteration_within_a_generator_is_told_with_its_own_place() -> None:
    def events() -> Iterator[int]:
        yield 1
        raise StopIteration("odd")

    line = events.__code__.co_firstlineno + 2
    with pytest.raises(RuntimeError) as caught:
        list(events())
    assert describe_error(caught.value) == f"StopIteration: odd (test_errors.py:{line})"


def test_only_a_signal_interrupts() -> None:
    assert is_interrupt(Interrupted())
    assert is_interrupt(KeyboardInterrupt()), "Python's own handler raises it at Ctrl-C"
    assert not is_interrupt(SystemExit(3))
    told = []
    thread = threading.Thread(target=lambda: told.append(is_interrupt(KeyboardInterrupt())))
    thread.start()
    thread.join()
    assert told == [False], "no signal reaches another thread"
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        assert not is_interrupt(KeyboardInterrupt())
    finally:
        signal.signal(signal.SIGINT, before)
