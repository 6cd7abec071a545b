"""The certification of a front on real Ray, through the command line: the same results as in this process."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from engines_cli import searching

from autoprune.engines.inline import run_inline
from autoprune.search.prepare import reopen_study
from autoprune.search.replication.replication import Replication
from autoprune.study.folder import StudyFolder
from autoprune.study.records import config_of
from autoprune.study.replication import replicate_results
from autoprune.trial import Replicate, TrialResult
from autoprune.worker import Worker

CHANGES = {
    "search": {"trials": 8, "sampler": "cost_aware", "sensitivity": False},
    "pruning": [{"method": "neuron"}],
    "training": {"epochs": 1},
    "certify": {"seeds": 2},
}


def outcomes(folder: StudyFolder) -> dict[Replicate, TrialResult]:
    return {replicate: replace(result, train_time_s=0) for replicate, result in replicate_results(folder).items()}


@pytest.mark.slow
def test_lineages_on_two_workers_come_out_as_one_after_the_other(trained_tiny: Path, tmp_path: Path) -> None:
    with searching(tmp_path / "ray", trained_tiny, CHANGES) as search:
        done = search.run("ray")
        assert (done.returncode, done.stderr) == (0, "")
        assert "trained again over seeds" in done.stdout
        search.wait_for_the_last_process()
        front = pd.read_parquet(search.results / "front.parquet")
        assert set(front["lineage.runs"]) == set(front["from_dense.runs"]) == {2}
        trials = {trial.number: config_of(trial) for trial in search.trials()}
        assert any(trials[number].parent is not None for number in front["number"])  # type: ignore[union-attr]
        found = outcomes(StudyFolder(search.results))

        shutil.copytree(search.results, tmp_path / "ray/results/again")
        again = StudyFolder(tmp_path / "ray/results/again")
        shutil.rmtree(again.certification)
        spec = reopen_study(again).spec
        certification = Replication(again, spec, [*front["number"]], trials, 2)  # type: ignore[arg-type]
        run_inline(certification, Worker(again))
        assert outcomes(again) == found
