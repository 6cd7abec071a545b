"""Trial records go through JSON text and come back the same."""

import json
import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autoprune.trial import (
    Cost,
    EpochReport,
    OptimizerConfig,
    PruningConfig,
    Replicate,
    RunId,
    ScheduleConfig,
    SensitivityJob,
    TrialConfig,
    TrialResult,
    config_from_dict,
    parse_json,
    report_from_dict,
    result_from_dict,
    to_dict,
)

counts = st.integers(0, 2**53)
finite = st.floats(allow_nan=False)
names = st.text(max_size=8)
scalars = st.integers(-(2**53), 2**53) | finite | st.booleans() | names
params = st.dictionaries(names, scalars, max_size=3)
costs = st.builds(Cost, counts, counts, counts, counts, st.none() | finite)
schedules = st.builds(ScheduleConfig, names, params)
prunings = st.builds(
    PruningConfig,
    widths=st.dictionaries(names, counts, max_size=3),
    removed_blocks=st.lists(names, max_size=3).map(tuple),
    weight_ratios=st.dictionaries(names, st.floats(0, 1), max_size=3),
    weight_scope=st.sampled_from(["layer", "global", "lamp"]),
    weight_pattern=st.sampled_from(["none", "2:4"]),
    gradual_share=st.floats(0, 1),
)
configs = st.builds(
    TrialConfig,
    run=counts,
    seed=st.integers(0, 2**63 - 1),
    epochs=counts,
    optimizer=st.builds(OptimizerConfig, names, params),
    lr_schedule=schedules,
    batch_size_schedule=schedules,
    pruning=prunings,
    parent=st.none() | counts,
    params=params,
    with_test=st.booleans(),
)
reports = st.builds(
    EpochReport,
    *(counts, counts, finite, finite, finite, finite, counts, finite),
    kept=st.dictionaries(names, counts, max_size=3),
    removed_blocks=st.lists(names, max_size=3).map(tuple),
    cost=st.none() | costs,
)
results = st.builds(
    TrialResult,
    run=counts,
    state=st.sampled_from(["finished", "stopped", "failed", "infeasible", "repeated"]),
    metric=st.none() | finite,
    loss=st.none() | finite,
    cost=st.none() | costs,
    kept=st.dictionaries(names, counts, max_size=3),
    removed_blocks=st.lists(names, max_size=3).map(tuple),
    left_dense=st.lists(names, max_size=3).map(tuple),
    train_time_s=finite,
    seed=st.integers(0, 2**63 - 1),
    error=st.none() | names,
    metric_test=st.none() | finite,
)


def through_text(record: Any) -> Any:
    return json.loads(json.dumps(to_dict(record)))


def kinds(values: Any) -> list[type]:
    return [type(value) for value in values.values()]


@given(configs)
def test_config(config: TrialConfig) -> None:
    found = config_from_dict(through_text(config))
    assert found == config
    assert kinds(found.params) == kinds(config.params)  # 1, 1.0 and True are equal, and not the same
    assert kinds(found.lr_schedule.params) == kinds(config.lr_schedule.params)


@given(results)
def test_result(result: TrialResult) -> None:
    assert result_from_dict(through_text(result)) == result


@given(reports)
def test_report(report: EpochReport) -> None:
    assert report_from_dict(through_text(report)) == report


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite(loss: float) -> None:
    assert repr(result_from_dict(through_text(TrialResult(0, "failed", loss=loss))).loss) == repr(loss)


def test_records_are_plain() -> None:
    report = EpochReport(3, 1, metric=0.9, loss=0.1, train_loss=0.2, lr=0.01, batch_size=32, train_time_s=1.5)
    assert to_dict(report) == {
        "number": 3,
        "epoch": 1,
        "metric": 0.9,
        "loss": 0.1,
        "train_loss": 0.2,
        "lr": 0.01,
        "batch_size": 32,
        "train_time_s": 1.5,
        "kept": {},
        "removed_blocks": [],
        "cost": None,
        "device_batch": None,
    }
    assert to_dict(Cost(1, 2, 3, 4)) == {
        "params": 1,
        "nonzero_params": 2,
        "size_bytes": 3,
        "macs": 4,
        "latency_ms": None,
    }


@pytest.mark.parametrize(
    "record", [{}, {"number": 0}, {"number": "x", "state": "finished"}, {"number": 0, "state": "over"}, None, []]
)
def test_what_is_no_result(record: Any) -> None:
    with pytest.raises(ValidationError):
        result_from_dict(record)


@pytest.mark.parametrize("record", [{}, {"number": 0, "seed": 0, "epochs": 1}, None])
def test_what_is_no_config(record: Any) -> None:
    with pytest.raises(ValidationError):
        config_from_dict(record)


def test_flops_are_two_for_each_multiply_accumulate() -> None:
    assert Cost(params=1, nonzero_params=1, size_bytes=1, macs=40).flops == 80


def test_records_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        TrialResult(0, "failed").run = 1  # type: ignore[misc]


replicates = st.builds(Replicate, st.integers(0, 10**6), st.integers(0, 999), st.booleans())


EXAMPLE = TrialConfig(
    0, 0, 1, OptimizerConfig("sgd", {}), ScheduleConfig("cosine", {}), ScheduleConfig("constant", {}), PruningConfig()
)
runs = counts | st.builds(SensitivityJob, st.integers(0, 999_998)) | replicates


@given(runs, runs, configs)
def test_every_run_has_a_record_of_its_own(one: RunId, other: RunId, config: TrialConfig) -> None:
    records = [to_dict(replace(config, run=run)) for run in (one, other)]
    assert [config_from_dict(json.loads(json.dumps(record))).run for record in records] == [one, other]
    assert (records[0]["number"] == records[1]["number"]) == (one == other)


@given(replicates, replicates)
def test_every_replicate_has_a_name_of_its_own(one: Replicate, other: Replicate) -> None:
    assert (str(one) == str(other)) == (one == other)


def test_runs_are_recorded_as_they_always_were() -> None:
    known = {7: 7, SensitivityJob(2): -3, Replicate(3, 1): -1_006_002, Replicate(3, 1, from_dense=True): -1_006_003}
    assert {run: to_dict(replace(EXAMPLE, run=run))["number"] for run in known} == known


def test_a_replicate_starts_from_its_parents_replicate_and_a_trial_from_its_parent() -> None:
    along = replace(EXAMPLE, run=Replicate(3, 1), parent=2)
    assert along.parent_run == Replicate(2, 1)
    assert to_dict(along)["parent"] == to_dict(replace(EXAMPLE, run=Replicate(2, 1)))["number"]
    assert config_from_dict(to_dict(along)) == along
    assert replace(EXAMPLE, run=3, parent=2).parent_run == 2
    assert replace(EXAMPLE, run=Replicate(3, 1, from_dense=True)).parent_run is None


def test_only_a_trial_has_a_trial_number() -> None:
    assert replace(EXAMPLE, run=3).number == 3
    with pytest.raises(TypeError, match="is no trial"):
        _ = replace(EXAMPLE, run=Replicate(3, 1)).number


@given(
    st.recursive(st.none() | st.integers() | scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner))
    | st.text(st.characters(categories=["Cs", "L"]))
)
def test_json_is_parsed_as_python_does(value: Any) -> None:
    text = json.dumps(value)
    parsed = parse_json(text)
    assert parsed == json.loads(text) == value
    assert repr(parsed) == repr(value)
    assert math.isnan(parse_json("NaN"))
