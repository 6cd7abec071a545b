"""The settings of ``cost_aware``: each is explained, and what is passed to the driver reaches the sampler."""

import ast
import doctest
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from types import ModuleType

import pytest

from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.search.samplers.cost_aware import CostAwareSettings, ehvi, features, settings
from autoprune.search.samplers.cost_aware.settings import CandidateSettings, InitialDesignSettings
from autoprune.study.records import ORIGIN


def test_every_number_has_a_docstring_of_its_own() -> None:
    parts = {type(getattr(CostAwareSettings(), part.name)) for part in fields(CostAwareSettings)}
    for node in ast.parse(inspect.getsource(settings)).body:
        if isinstance(node, ast.ClassDef) and node.name in {part.__name__ for part in parts}:
            for statement, after in zip(node.body, node.body[1:], strict=False):
                if isinstance(statement, ast.AnnAssign):
                    assert isinstance(after, ast.Expr), ast.unparse(statement)
                    assert isinstance(ast.literal_eval(after.value), str)
    assert all(is_dataclass(part) for part in parts)


def test_settings_can_not_be_changed_and_equal_ones_are_equal() -> None:
    assert CostAwareSettings() == CostAwareSettings(initial_design=InitialDesignSettings(max_steps=12))
    assert CostAwareSettings() != CostAwareSettings(initial_design=InitialDesignSettings(max_steps=3))
    with pytest.raises(AttributeError):
        CostAwareSettings().initial_design.max_steps = 3  # type: ignore[misc]


def test_kinds_of_candidates_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must add up to 1, got 1\.1"):
        CandidateSettings(fill_share=0.2)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_driver_hands_its_settings_on(tiny_study: Callable[..., PreparedStudy], enabled: bool) -> None:
    study = tiny_study({"search": {"sampler": "cost_aware", "sensitivity": False, "ladder": 0}})
    chosen = CostAwareSettings(initial_design=InitialDesignSettings(enabled=enabled))
    driver = Driver(study.folder, study.space, study.table, study.dense, sampler_settings=chosen)
    assert driver.suggest() is not None
    (trial,) = driver.study.get_trials(deepcopy=False)
    assert (trial.user_attrs[ORIGIN] in chosen.candidates.share_of_kind) == (not enabled)


@pytest.mark.parametrize("module", [ehvi, features, settings])
def test_examples_of_docstrings_run(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
