"""What differs between two space files."""

import pytest

from autoprune.config import SearchConfig, differences, parse_config

BASE = """
study: s
task: {model: {callable: "a:b", args: {width: 8}}, data: "a:c"}
constraints: {flops: 0.5x}
training:
  lr_schedule: {kind: constant, lr: {low: 0.01, high: 0.1, log: true}}
  batch_size_schedule: {kind: constant, size: [32, 64]}
pruning: {method: neuron, ratio: 0.5}
search: {trials: 60}
"""


def changed(old: str, new: str) -> SearchConfig:
    assert old in BASE
    return parse_config(BASE.replace(old, new), "changed")


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("high: 0.1", "high: 0.2", ["training.lr_schedule[0].lr.high: 0.1 -> 0.2"]),
        ("[32, 64]", "[32, 128]", ["training.batch_size_schedule[0].size[1]: 64 -> 128"]),
        ("[32, 64]", "32", ["training.batch_size_schedule[0].size: [32, 64] -> 32"]),
        ("width: 8", "width: 8, depth: null", ["task.model.args.depth: (not given) -> None"]),
        ("training:", "training:\n  precision: bf16", ["training.precision: float32 -> bf16"]),
        ("0.5x", "0.5", ["constraints.flops.relative: True -> False"]),
        (
            "trials: 60",
            "seed: 1, sampler: random",
            ["search.sampler: auto -> random", "search.seed: 0 -> 1"],
        ),
    ],
)
def test_each_difference_with_its_place(old: str, new: str, lines: list[str]) -> None:
    assert differences(parse_config(BASE, "base"), changed(old, new)) == lines


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trials: 60", "trials: 90, max_failures: 1, max_retries: 0, trial_timeout: 60"),
        ("search: {trials: 60}", "search: {trials: 60}\nresources: {workers: 3, gpus_per_trial: 0.5}"),
        ("search: {trials: 60}", "search: {trials: 60}\nresources: {cpus_per_trial: 2, custom: {licence: 1}}"),
        ("pruning: {method: neuron, ratio: 0.5}", "pruning: [{method: neuron, ratio: 0.5, criterion: l2}]"),
        ("search: {trials: 60}", "search: {trials: 60}\ncertify: {seeds: 5}"),
        ("log: true", "log: true, step: null"),
        ("study: s", "# a comment\nstudy: 's'"),
    ],
)
def test_what_a_study_may_change(old: str, new: str) -> None:
    assert differences(parse_config(BASE, "base"), changed(old, new)) == []
