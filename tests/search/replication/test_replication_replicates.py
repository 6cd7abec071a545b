"""Which trials are trained again, and that a lineage trained again is the lineage."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from replication_lineages import TRIALS, trial

from autoprune.search.prepare import PreparedStudy
from autoprune.search.replication.replicates import lineage, replicates_of
from autoprune.training.schedules import lr_at
from autoprune.trial import Replicate, RunId, TrialConfig, TrialResult
from autoprune.worker import Worker


def by_name(replicates: dict[RunId, TrialConfig]) -> dict[str, TrialConfig]:
    assert all(run == config.run for run, config in replicates.items())
    return {str(run): config for run, config in replicates.items()}


def test_every_ancestor_once_a_seed_and_every_point_once_from_dense() -> None:
    replicates = by_name(replicates_of([2, 3], TRIALS, 2, 0))
    along = [f"{number}-seed{index}" for index in (0, 1) for number in (0, 1, 2, 3)]
    assert set(replicates) == {*along, "2-seed0-dense", "3-seed0-dense", "2-seed1-dense", "3-seed1-dense"}
    assert len({config.seed for config in replicates.values()}) == 12
    parents = {name: config.parent_run for name, config in replicates.items()}
    assert parents["0-seed1"] is parents["3-seed1-dense"] is None
    assert parents["3-seed1"] == replicates["1-seed1"].run
    assert parents["2-seed0"] == replicates["0-seed0"].run
    assert {name for name, config in replicates.items() if config.with_test} == {
        name for name in replicates if name[0] in "23"
    }
    assert [config.epochs for name, config in replicates.items() if name.endswith("dense")] == [3, 3, 3, 3]


def test_a_point_that_starts_from_dense_is_not_trained_in_two_ways() -> None:
    assert list(by_name(replicates_of([0], TRIALS, 2, 0))) == ["0-seed0", "0-seed1"]


def test_seeds_stay_when_more_are_asked_for_or_the_study_grows() -> None:
    few, many = replicates_of([2, 3], TRIALS, 1, 7), replicates_of([1, 2, 3, 4], TRIALS, 3, 7)
    assert (
        few.items() <= {n: replace(c, with_test=few[n].with_test) if n in few else c for n, c in many.items()}.items()
    )


def test_from_dense_the_schedules_keep_their_shape() -> None:
    long = trial(1, 0, 4, epochs=2)
    (replicate,) = (
        config
        for config in replicates_of([1], {0: trial(0, None, 6, epochs=4), 1: long}, 1, 0).values()
        if config.run == Replicate(1, 0, from_dense=True)
    )
    assert replicate.epochs == 6
    assert replicate.lr_schedule.params["every"] == 3
    for progress in (0.0, 0.4, 0.5, 0.9):
        assert lr_at(replicate.lr_schedule, progress, 6) == lr_at(long.lr_schedule, progress, 2)


def test_lineage_begins_at_dense() -> None:
    assert [each.number for each in lineage(3, TRIALS)] == [0, 1, 3]


FAMILIES = {
    "neuron": (trial(0, None, 6), trial(1, 0, 4, criterion="taylor")),
    "gradual": (trial(0, None, 6, epochs=2, gradual_share=0.8), trial(1, 0, 3, epochs=2, gradual_share=0.5)),
    "layer": (trial(0, None, 7), trial(1, 0, 5, removed_blocks=("block2",))),
    "weight": (
        trial(0, None, 7, weight_ratios={"head.weight": 0.3}),
        trial(1, 0, 7, weight_ratios={"head.weight": 0.7}, weight_scope="lamp"),
        trial(2, 1, 5, weight_ratios={"head.weight": 0.7}, gradual_share=1.0, epochs=2),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_trials_own_seeds_a_lineage_comes_out_bit_for_bit(
    tiny_study: Callable[..., PreparedStudy], family: str
) -> None:
    trials = {each.number: each for each in FAMILIES[family]}
    worker = Worker(tiny_study().folder)
    worker.folder.certification.mkdir()

    def run(config: TrialConfig) -> TrialResult:
        *_, result = worker.run(config)
        assert isinstance(result, TrialResult)
        assert result.state == "finished", result.error
        return result

    expected = {number: run(config) for number, config in trials.items()}
    last = max(trials)
    for replicate, config in replicates_of([last], trials, 1, 0).items():
        assert isinstance(replicate, Replicate)
        found = run(replace(config, seed=trials[replicate.trial].seed))
        original = expected[replicate.trial]
        assert (found.kept, found.removed_blocks) == (original.kept, original.removed_blocks)
        assert found.epochs_lineage == original.epochs_lineage
        assert (found.metric_test is not None) == (replicate.trial == last)
        if not replicate.from_dense:
            assert (found.metric, found.loss) == (original.metric, original.loss)
            assert found.cost == replace(original.cost, latency_ms=None)  # type: ignore[type-var]
