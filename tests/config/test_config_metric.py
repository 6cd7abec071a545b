"""The metric of a space file: a name and a direction, and what follows from them everywhere else."""

from typing import Any

import pytest
import yaml

from autoprune.config import SearchConfig, parse_config
from autoprune.config.constraints import Drop
from autoprune.config.metric import METRICS, MetricSpec
from autoprune.errors import ConfigError

TASK = {"model": "my_task:net", "data": "my_task:data"}


def config(metric: Any = None, **sections: Any) -> SearchConfig:
    task = TASK if metric is None else TASK | {"metric": metric}
    return parse_config(yaml.safe_dump({"study": "s", "task": task, **sections}), "space.yaml")


@pytest.mark.parametrize(
    ("metric", "name", "direction"),
    [
        (None, "accuracy", "maximize"),
        ("accuracy", "accuracy", "maximize"),
        ({"name": "accuracy", "args": {"ignore_index": 255}}, "accuracy", "maximize"),
        ({"callable": "my_task:rmse", "direction": "minimize"}, "rmse", "minimize"),
        ({"callable": "my_task:Metrics.dice", "direction": "maximize"}, "dice", "maximize"),
        ({"callable": "my_task:f", "name": "mAP@50", "direction": "maximize"}, "mAP@50", "maximize"),
    ],
)
def test_name_and_direction(metric: Any, name: str, direction: str) -> None:
    found = config(metric)
    assert (found.metric.name, found.metric.direction) == (name, direction)
    assert found.objectives == [name, "flops"]
    assert found.directions == [direction, "minimize"]
    both = config(metric, objectives=["params", name, "latency_ms"])
    assert both.directions == ["minimize", direction, "minimize"]
    assert both.cost_objectives == ["params", "latency_ms"]
    assert SearchConfig.model_validate(both.model_dump(mode="json")) == both


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            "my_task:mape",
            r'task.metric needs a direction: write \{callable: "my_task:mape", name: mape, direction: max',
        ),
        ({"callable": "m:f", "name": "psnr"}, "task.metric needs a direction: .*name: psnr"),
        ({"callable": "m:f", "direction": "down"}, "task.metric.direction: input should be"),
        ({"name": "accuracy", "direction": "minimize"}, "task.metric.direction must be maximize: accuracy is built in"),
        ("acuracy", "unknown metric 'acuracy' .did you mean 'accuracy'"),
        ({"callable": "m:f", "name": "flops", "direction": "maximize"}, "task.metric.name must not be 'flops'"),
        ({"callable": "m:f", "name": "my f", "direction": "maximize"}, "task.metric.name must start with a letter"),
        ({"callable": "m f", "direction": "maximize"}, "task.metric.callable must have the form module:callable"),
        (["accuracy"], "task.metric must be a name such as accuracy"),
        ({}, "task.metric needs a name out of: accuracy"),
    ],
)
def test_mistakes_are_told_with_their_place(metric: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"space.yaml:\d+: .*{message}") as raised:
        config(metric)
    assert len(raised.value.problems) == 1


def test_the_metric_must_be_among_the_objectives() -> None:
    own = {"callable": "m:rmse", "direction": "minimize"}
    with pytest.raises(ConfigError, match="objectives must hold 'rmse', the metric"):
        config(own, objectives=["flops", "params"])
    with pytest.raises(ConfigError, match=r"unknown objective 'accuracy'\. Known: rmse, params"):
        config(own, objectives=["accuracy", "params"])


@pytest.mark.parametrize("name", ["metric_drop", "accuracy_drop"])
def test_a_drop_is_absolute_or_a_share_of_dense(name: str) -> None:
    assert config(constraints={name: 3}).constraints.metric_drop == Drop(value=3.0)
    relative = config(constraints={name: "2.5%"}).constraints.metric_drop
    assert relative is not None
    assert relative.amount(-40.0) == pytest.approx(1.0)
    assert str(relative) == "2.5%"
    for wrong in (-1, "2", "-2%", True, "2%%"):
        with pytest.raises(
            ConfigError, match=rf"constraints.{name} must be a number of 0 or more, or a share of dense"
        ):
            config(constraints={name: wrong})


def test_one_drop_at_most() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'accuracy_drop'"):
        config(constraints={"metric_drop": 0.1, "accuracy_drop": 0.1})


def test_scores_are_higher_where_values_are_better() -> None:
    for direction in ("maximize", "minimize"):
        spec = MetricSpec("m", direction)  # type: ignore[arg-type]
        better, worse = (2.0, 3.0) if spec.is_minimized else (3.0, 2.0)
        assert spec.score(better) > spec.score(worse)
        assert spec.value(spec.score(worse)) == worse


@pytest.mark.parametrize("dense", [40.0, 0.3, 1e6, -3.0, 0.0])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_floor_is_below_dense_by_a_unit_of_the_same_scale(dense: float, direction: Any) -> None:
    spec = MetricSpec("m", direction)
    unit, floor, score = spec.unit(dense), spec.floor(dense), spec.score(dense)
    assert unit > 0
    assert floor <= score
    if not (direction == "maximize" and 0 <= dense <= 1):
        assert unit == pytest.approx(abs(dense) or 1.0)
        assert (score - floor) / unit == pytest.approx(1.0)
    assert (MetricSpec().unit(0.9), MetricSpec().floor(0.9)) == (1.0, 0.0)


def test_every_built_in_metric_is_its_own_name() -> None:
    for name, direction in METRICS.items():
        assert config(name).metric == MetricSpec(name, direction)
