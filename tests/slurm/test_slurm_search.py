"""A study on a real Slurm, with a time limit that is too short for it: requeued by itself, nothing lost, none twice."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pandas as pd
import pytest
from slurm_daemons import Slurm, missing_daemons, running_slurm
from tiny import TINY_TASK, copy_study

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "slurm").glob("*.sbatch"))
N_TRIALS, EPOCHS = 3, 4
KILLED = {  # by SIGUSR1, as bash says it and as symmetric-run hands it on
    "array.sbatch": 128 + signal.SIGUSR1,
    "search-multinode.sbatch": 256 - signal.SIGUSR1,
    "search.sbatch": 128 + signal.SIGUSR1,
}
SLOW_LOSS = '''

def slow_loss(outputs, targets):
    """Cross-entropy that takes its time, so that no machine is done within the time limit."""
    import time

    time.sleep(0.4)
    return nn.functional.cross_entropy(outputs, targets)
'''
CHANGES = {
    "task": {"loss": "tiny_task:slow_loss"},
    "training": {"epochs": EPOCHS, "batch_size_schedule": {"kind": "constant", "size": 50}},
    "search": {"trials": N_TRIALS},
}


def test_the_scripts_are_sound_and_differ_in_little() -> None:
    assert [path.name for path in SCRIPTS] == list(KILLED)
    for path in SCRIPTS:
        assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
        text = path.read_text()
        asked = f'if [ "$code" -eq {os.EX_TEMPFAIL} ] || [ "$code" -eq {KILLED[path.name]} ]; then'
        for line in ("#SBATCH --signal=B:USR1@120", "#SBATCH --requeue", asked):
            assert text.count(line) == 1, (path.name, line)


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    if missing_daemons():
        pytest.skip(f"not installed: {', '.join(missing_daemons())} (apt-get install slurm-wlm munge)")
    with tempfile.TemporaryDirectory(prefix="autoprune-slurm-") as root, running_slurm(Path(root)) as running:
        yield running


@pytest.mark.slurm
def test_a_study_goes_on_after_the_time_limit(slurm: Slurm, trained_tiny: Path, tmp_path: Path) -> None:
    space = copy_study(trained_tiny, tmp_path, CHANGES, TINY_TASK + SLOW_LOSS)
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "autoprune").write_text(f'#!/bin/sh\nexec {sys.executable} -m autoprune "$@"\n')
    (commands / "autoprune").chmod(0o755)
    slurm.environment |= {"PATH": f"{commands}:{slurm.environment['PATH']}", "PYTHONPATH": str(ROOT)}
    limit = ["--time=1", "--signal=B:USR1@10"]  # minutes and seconds; Slurm looks every half a minute
    script = str(ROOT / "slurm" / "search.sbatch")
    job = slurm.call("sbatch", "--parsable", *limit, "--output=job.log", script, space.name, cwd=tmp_path).strip()
    log = tmp_path / "job.log"
    deadline = time.monotonic() + 300
    while (state := slurm.job(job)["JobState"]) in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"):
        assert time.monotonic() < deadline, (slurm.job(job), log.read_text(), slurm.logs())
        time.sleep(1)
    if state != "COMPLETED":
        pytest.fail(f"{slurm.job(job)}\n{log.read_text()}\n{slurm.logs()}")  # whole, as an assert would not show it
    requeues = re.findall(r"^exit code (\d+): requeued$", log.read_text(), re.MULTILINE)
    assert 1 <= len(requeues) == int(slurm.job(job)["Restarts"])
    assert requeues.count(str(os.EX_TEMPFAIL)) == log.read_text().count("the same command goes on") >= 1
    study = tmp_path / "results" / "tiny"
    frame = pd.read_parquet(study / "trials.parquet")
    assert frame["number"].tolist() == list(range(N_TRIALS))
    assert set(frame["state"]) == {"finished"}
    assert set(frame["epochs"]) == {EPOCHS}
    trials = optuna.load_study(study_name="tiny", storage=f"sqlite:///{study / 'study.db'}").get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * N_TRIALS
