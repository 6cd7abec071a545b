"""With ``start: nearest``, a trial goes on from the cheapest trained network that holds all it keeps."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch

from autoprune.engines.inline import run_inline
from autoprune.search.driver import Driver
from autoprune.search.parents import nearest_parent
from autoprune.search.prepare import PreparedStudy
from autoprune.trial import Cost, PruningConfig, TrialConfig, TrialResult
from autoprune.worker import Worker

WIDTHS = {"stem": 8, "block1.conv1": 8, "block2.conv1": 8}


def test_a_real_study_grows_a_tree(tiny_study: Callable[..., PreparedStudy]) -> None:
    changes = {
        "training": {"epochs": [1, 2]},
        "pruning": [{"method": "neuron", "ratio": [0.0, 0.25, 0.5]}, {"method": "layer", "ratio": [0.0, 0.5]}],
        "search": {"start": "nearest", "ladder": 0, "seed": 1},
    }
    session = tiny_study(changes)
    driver = Driver(session.folder, session.space, session.table, session.dense, 12)
    run_inline(driver, Worker(session.folder))
    frame = driver.frame()
    assert frame["error"].isna().all()
    assert all(session.folder.checkpoint_store.has_model(number) for number in frame["number"])
    rows = frame.set_index("number")
    kept = [column for column in rows if column.startswith("kept.")]
    assert rows["parent"].notna().sum() >= 3
    for number, row in rows.iterrows():
        earlier = rows.loc[: int(str(number)) - 1]
        wide = earlier[(earlier[kept] >= row[kept]).all(axis=1)]
        if pd.isna(row["parent"]):
            assert wide.empty
            assert row["epochs_lineage"] == row["epochs"]
        else:
            parent = rows.loc[row["parent"]]
            assert row["parent"] in wide.index
            assert parent["flops"] == wide["flops"].min()
            assert row["epochs_lineage"] == row["epochs"] + parent["epochs_lineage"]


@pytest.fixture
def finished(tiny_study: Callable[..., PreparedStudy]) -> Callable[..., bool]:
    """Whether a trial with the second pruning would start from a finished trial with the first."""
    session = tiny_study({"search": {"start": "nearest", "ladder": 0}})
    driver = Driver(session.folder, session.space, session.table, session.dense, 1)
    base = driver.suggest()
    assert base is not None

    def starts_from(first: PruningConfig, second: PruningConfig, has_model: bool = True, **result: Any) -> bool:
        gone = tuple(f"{block}." for block in first.removed_blocks)
        kept = {name: 0 if name.startswith(gone) else first.widths.get(name, 8) for name in WIDTHS} if gone else {}
        kept = kept or {**WIDTHS, **first.widths}
        cost = Cost(params=1, nonzero_params=1, size_bytes=1, macs=1)
        told = TrialResult(0, **{"state": "finished", "cost": cost, "kept": kept, **result}, metric=0.5)
        told = TrialResult(**{**vars(told), "removed_blocks": first.removed_blocks})
        parent = TrialConfig(**{**vars(base), "pruning": first})
        config = TrialConfig(**{**vars(base), "run": 1, "pruning": second})
        found = nearest_parent(config, [(parent, told)], session.space.plan, lambda number: has_model)
        assert found == (config if found.parent is None else TrialConfig(**{**vars(config), "parent": 0}))
        return found.parent == 0

    return starts_from


@pytest.mark.parametrize(
    ("first", "second", "holds"),
    [
        (PruningConfig({"stem": 6}), PruningConfig({"stem": 6}), True),
        (PruningConfig({"stem": 6}), PruningConfig({"stem": 5, "block1.conv1": 2}), True),
        (PruningConfig({"stem": 6}), PruningConfig({"stem": 7}), False),
        (PruningConfig({"stem": 6}), PruningConfig({"block1.conv1": 2}), False),
        (PruningConfig({}, removed_blocks=("block2",)), PruningConfig({"stem": 5}), False),
        (PruningConfig({}, removed_blocks=("block2",)), PruningConfig({"stem": 5}, removed_blocks=("block2",)), True),
        (
            PruningConfig({"block2.conv1": 2}),
            PruningConfig({"block2.conv1": 7}, removed_blocks=("block2",)),
            True,  # the widths within a block that goes are no matter
        ),
        (PruningConfig(weight_ratios={"head.weight": 0.5}), PruningConfig(weight_ratios={"head.weight": 0.4}), False),
        (PruningConfig(weight_ratios={"head.weight": 0.5}), PruningConfig(), False),
        (PruningConfig(weight_ratios={"head.weight": 0.5}), PruningConfig(weight_ratios={"head.weight": 0.5}), True),
        (PruningConfig(), PruningConfig(weight_ratios={"head.weight": 0.5}), True),
        (
            PruningConfig(weight_ratios={"head.weight": 0.5}, weight_scope="global"),
            PruningConfig(weight_ratios={"head.weight": 0.6}, weight_scope="layer"),
            False,  # ranked together, one layer may have lost more than its ratio
        ),
        (
            PruningConfig(weight_ratios={"head.weight": 0.5}, weight_scope="layer"),
            PruningConfig(weight_ratios={"head.weight": 0.6}, weight_scope="global"),
            True,
        ),
        (
            PruningConfig(weight_ratios={"head.weight": 0.5}, weight_scope="lamp"),
            PruningConfig(weight_ratios={"head.weight": 0.6}, weight_scope="global"),
            False,
        ),
        (
            PruningConfig(weight_ratios={"head.weight": 0.5}, weight_scope="lamp"),
            PruningConfig(weight_ratios={"head.weight": 0.6}, weight_scope="lamp"),
            True,
        ),
        (
            PruningConfig(weight_ratios={"head.weight": 0.4}),
            PruningConfig(weight_ratios={"head.weight": 0.5}, weight_pattern="2:4"),
            False,  # three of four neighbours may be zero
        ),
        (
            PruningConfig(weight_ratios={"head.weight": 0.5}, weight_pattern="2:4"),
            PruningConfig(weight_ratios={"head.weight": 0.5}, weight_pattern="2:4"),
            True,
        ),
        (
            PruningConfig(weight_ratios={"head.weight": 0.5}, weight_pattern="2:4"),
            PruningConfig(weight_ratios={"head.weight": 0.6}),
            True,
        ),
    ],
)
def test_what_holds_what(
    finished: Callable[..., bool], first: PruningConfig, second: PruningConfig, holds: bool
) -> None:
    assert finished(first, second) == holds


def test_only_finished_trials_whose_network_is_kept_are_parents(finished: Callable[..., bool]) -> None:
    everything = PruningConfig()
    assert finished(everything, everything)
    assert not finished(everything, everything, state="failed")
    assert not finished(everything, everything, cost=None)
    assert not finished(everything, everything, has_model=False)


def test_weights_come_from_the_parent(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study({"search": {"start": "nearest"}})
    worker = Worker(session.folder)
    driver = Driver(session.folder, session.space, session.table, session.dense)
    base = driver.suggest()
    assert base is not None
    still = {"lr_schedule": type(base.lr_schedule)("constant", {"lr": 1e-12}), "epochs": 1}
    parent = TrialConfig(**{**vars(base), "run": 7, "pruning": PruningConfig({"stem": 6})})
    child = TrialConfig(**{**vars(base), **still, "run": 8, "parent": 7, "pruning": PruningConfig({"stem": 4})})
    for config in (parent, child):
        result = list(worker.run(config))[-1]
        assert isinstance(result, TrialResult)
        assert result.error is None

    from autoprune.formats.saved_model import load_model

    wide, narrow, dense = (
        load_model(session.folder.model(number), session.task.build_model).state_dict()["stem.weight"].flatten(1)
        for number in (7, 8, None)
    )
    distance = torch.cdist(narrow, wide)
    assert len(set(distance.argmin(1).tolist())) == 4
    assert distance.min(1).values.max() < 1e-6
    assert torch.cdist(narrow, dense).min() > 1e-4
