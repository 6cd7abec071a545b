"""A spec that is dumped, written as JSON, which is YAML, and read again is the same spec."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoprune.config import SearchConfig, parse_config
from autoprune.config.criteria import CRITERIA
from autoprune.config.optimizers import OPTIMIZERS
from autoprune.training.schedules import BATCH_SIZE_SCHEDULES, LR_SCHEDULES, KindSpec, ParameterSpec

RATIO = ParameterSpec("float", low=0, high=1, high_open=True)
COSTS = ("params", "nonzero_params", "size_bytes", "flops", "latency_ms")


def values(kind: ParameterSpec) -> st.SearchStrategy[Any]:
    if kind.choices:
        return st.sampled_from(kind.choices)
    if kind.type == "int":
        return st.integers(int(kind.low or 0), int(kind.high or 10_000))
    return st.floats(
        kind.low or 0, kind.high or 1e6, exclude_min=kind.low_open, exclude_max=kind.high_open, allow_subnormal=False
    )


@st.composite
def ranges(draw: st.DrawFn, kind: ParameterSpec) -> dict[str, Any]:
    low, high = sorted(draw(st.tuples(values(kind), values(kind))))
    extra = draw(st.sampled_from([{}, {"log": low > 0}, {"step": 1 if kind.type == "int" else 0.125}]))
    return {"low": low, "high": high, **extra}


def dimensions(kind: ParameterSpec) -> st.SearchStrategy[Any]:
    several = st.lists(values(kind), min_size=1, max_size=3, unique=True)
    return values(kind) | several if kind.choices else values(kind) | several | ranges(kind)


def sections(registry: dict[str, KindSpec], tag: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    def section(name: str) -> st.SearchStrategy[dict[str, Any]]:
        params = registry[name].params
        return st.fixed_dictionaries(
            {tag: st.just(name), **{key: dimensions(kind) for key, kind in params.items() if kind.required}},
            optional={key: dimensions(kind) for key, kind in params.items() if not kind.required},
        )

    names = st.lists(st.sampled_from(list(registry)), min_size=1, max_size=3, unique=True)
    return names.flatmap(lambda chosen: st.tuples(*map(section, chosen)).map(list))


layers = st.dictionaries(
    st.text("abc.*01", min_size=1, max_size=5), st.just("skip") | values(RATIO) | st.just({"high": 0.95}), max_size=2
)
methods = st.fixed_dictionaries(
    {
        "neuron": st.fixed_dictionaries(
            {"method": st.just("neuron")},
            optional={
                "criterion": st.lists(st.sampled_from(CRITERIA), min_size=1, unique=True),
                "layers": layers,
                "round_to": st.integers(1, 16),
                "reconstruct": st.booleans(),
                "hidden_sizes": st.booleans(),
            },
        ),
        "layer": st.fixed_dictionaries(
            {"method": st.just("layer")},
            optional={"ratio": dimensions(RATIO), "importance": st.sampled_from(["loss", "angular"])},
        ),
        "weight": st.fixed_dictionaries({"method": st.just("weight")}, optional={"layers": layers})
        | st.just({"method": "weight", "pattern": "2:4", "layers": {"a": "skip"}})
        | st.just({"method": "weight", "pattern": ["none", "2:4"], "scope": ["global", "lamp"], "ratio": 0.5}),
    }
)
ceilings = st.floats(1e-3, 1e12) | st.floats(1e-3, 2).map(lambda value: f"{value!r}x")
files = st.fixed_dictionaries(
    {
        "study": st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,9}\Z"),
        "task": st.just({"model": "a.b:C", "data": {"callable": "d:e", "args": {"n": 3, "names": ["x", None]}}}),
    },
    optional={
        "objectives": st.permutations(["accuracy", "flops", "latency_ms"]),
        "constraints": st.dictionaries(st.sampled_from(COSTS), ceilings),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "epochs": dimensions(ParameterSpec("int", low=1)),
                "optimizer": sections(OPTIMIZERS, "name"),
                "lr_schedule": sections(LR_SCHEDULES, "kind"),
                "batch_size_schedule": sections(BATCH_SIZE_SCHEDULES, "kind"),
                "gradual_pruning": dimensions(ParameterSpec("float", low=0, high=1)),
                "distillation": st.fixed_dictionaries(
                    {},
                    optional={
                        "weight": dimensions(ParameterSpec("float", low=0, high=1)),
                        "temperature": dimensions(ParameterSpec("float", low=1)),
                    },
                ),
                "precision": st.sampled_from(["float32", "bf16", "fp16"]),
                "compile": st.booleans(),
            },
        ),
        "pruning": methods.map(lambda found: list(found.values())),
        "search": st.fixed_dictionaries({"trials": st.integers(1, 1000), "storage": st.none() | st.just("sqlite://")}),
        "resources": st.fixed_dictionaries(
            {"workers": st.just("auto") | st.integers(1, 64)},
            optional={
                "cpus_per_trial": st.none() | st.integers(1, 64),
                "gpus_per_trial": st.floats(1e-4, 1) | st.integers(0, 8),
                "custom": st.dictionaries(st.text("ab:", min_size=1), st.floats(1e-4, 1e3) | st.integers(1, 9)),
            },
        ),
    },
)


@given(files)
def test_dump_and_parse(file: dict[str, Any]) -> None:
    spec = parse_config(json.dumps(file), "file")
    again = parse_config(spec.model_dump_json(), "dumped")
    assert again == spec


@given(files)
@example({"study": "62E6", "task": {"model": "a:b", "data": "a:c"}})
def test_what_was_written_is_what_is_read(file: dict[str, Any]) -> None:
    dumped = parse_config(json.dumps(file), "file").model_dump(mode="json")
    assert dumped["study"] == file["study"]
    for key in ("optimizer", "lr_schedule", "batch_size_schedule"):
        for written, read in zip(file.get("training", {}).get(key, []), dumped["training"][key], strict=False):
            for name, value in written.items():
                found = {k: v for k, v in read[name].items() if k in value} if isinstance(value, dict) else read[name]
                assert found == value


def test_a_spec_cannot_be_changed() -> None:
    spec = parse_config("study: s\ntask: {model: 'a:b', data: 'a:c'}\n", "file")
    with pytest.raises(ValueError, match="frozen"):
        spec.study = "t"
    assert spec == SearchConfig.model_validate(spec.model_dump())
