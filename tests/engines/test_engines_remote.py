"""`kill -9` of a search whose checkpoints are remote; then it goes on without the folder's copies."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from engines_cli import SLOW_TASK, searching

from autoprune.engines import load_engine
from autoprune.search.run import run_search
from autoprune.training.checkpoint import load_checkpoint

N_TRIALS = 5
CHANGES = {"search": {"trials": N_TRIALS}, "training": {"epochs": 4}}
MEASURED = ["latency_ms", "train_time_s"]
STEPS_AN_EPOCH = 4

TASK = SLOW_TASK.replace('    with open(log, "a")', '    with open(log if outputs.requires_grad else os.devnull, "a")')
"""Its log has the training steps alone."""


@pytest.mark.slow
@pytest.mark.usefixtures("brief_latency")
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_what_another_machine_sees_is_enough_to_go_on(trained_tiny: Path, tmp_path: Path, engine: str) -> None:
    place = tmp_path / "place"
    remote = {**CHANGES, "search": {"trials": N_TRIALS, "checkpoints": place.as_uri()}}
    with searching(tmp_path / "a", trained_tiny, remote, 0.03, TASK) as search:
        search.start(engine)
        search.wait_until(lambda search: search.told() and search.amid())
        search.kill()
        search.wait_for_the_last_process()
        told = {trial.number for trial in search.trials() if trial.state.name == "COMPLETE"}
        assert "RUNNING" in search.states()
        shutil.rmtree(search.results / "checkpoints")
        search.log.unlink()
        states = [load_checkpoint(path) for path in place.rglob("*.training") if int(path.stem) not in told]
        n_epochs_done = sum(state["report"]["epoch"] for state in states if state is not None)
        assert n_epochs_done > 0

        search.go_on(engine)
        search.wait_for_the_last_process()
        frame = search.frame()
        assert frame["number"].tolist() == list(range(N_TRIALS))
        assert set(frame["state"]) == {"finished"}
        front = pd.read_parquet(search.results / "front.parquet")
        n_epochs_left = 4 * (N_TRIALS - len(told)) - n_epochs_done
        assert len(search.log.read_text().splitlines()) == STEPS_AN_EPOCH * n_epochs_left

        for folder in (search.results / "checkpoints", *place.glob("*/checkpoints")):
            assert {path.name for path in folder.iterdir()} == set(front["number"].astype(str))
    with searching(tmp_path / "whole", trained_tiny, CHANGES) as whole:
        run_search(whole.space, whole.results.parent, load_engine("inline"))
        pd.testing.assert_frame_equal(
            whole.frame().drop(columns=MEASURED), frame.drop(columns=MEASURED), check_exact=True
        )


@pytest.mark.slow
def test_a_place_lost_amid_a_search_on_ray_stops_it_and_no_trial_has_failed(trained_tiny: Path, tmp_path: Path) -> None:
    place, lost = tmp_path / "place", tmp_path / "lost"
    remote = {**CHANGES, "search": {"trials": N_TRIALS, "checkpoints": place.as_uri()}}
    with searching(tmp_path / "a", trained_tiny, remote, seconds=0.03) as search:
        search.start("ray")
        search.wait_until(lambda search: search.told() and search.amid())
        place.rename(lost)
        place.write_text("")
        code, out, err = search.end()
        assert code == 2, out + err
        assert f"search.checkpoints: '{place.as_uri()}' can't be used: " in err
        assert "the same command goes on." in err
        assert "Traceback" not in out + err
        search.wait_for_the_last_process()
        assert set(search.states()) <= {"COMPLETE", "WAITING"}

        place.unlink()
        lost.rename(place)
        done = search.run("ray")
        assert (done.returncode, done.stderr) == (0, "")
        search.wait_for_the_last_process()
        frame = search.frame()
        assert frame["number"].tolist() == list(range(N_TRIALS))
        assert set(frame["state"]) == {"finished"}
