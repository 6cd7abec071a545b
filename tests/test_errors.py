"""The errors' texts."""

import autoprune.errors as errors
from autoprune.errors import AutopruneError, ConfigError, describe_error, unknown_name


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
