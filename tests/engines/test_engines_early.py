"""Ray is started while all else is loaded, and ends with the command however that ends."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from engines_cli import searching

from autoprune.engines import started_early

CHANGES = {"search": {"trials": 2, "ladder": 0}}


def test_nothing_is_started_in_vain(trained_tiny: Path, tmp_path: Path) -> None:
    with searching(tmp_path, trained_tiny, CHANGES) as search:
        results = search.results.parent
        broken = tmp_path / "broken.yaml"
        broken.write_text("study: 1 2")
        (search.results / "test.json").write_text("{}")
        for name, address, space in (
            ("inline", None, search.space),
            ("ray", "auto", search.space),
            ("ray", None, broken),
            ("ray", None, tmp_path / "none.yaml"),
            ("ray", None, search.space),  # its test split was read: it has been at its end
        ):
            with started_early(name, address, space, results):
                import ray

                assert not ray.is_initialized()


@pytest.mark.slow
def test_a_mistake_found_later_ends_ray(trained_tiny: Path, tmp_path: Path) -> None:
    with searching(tmp_path, trained_tiny, CHANGES) as search:
        task = tmp_path / "tiny_task.py"
        task.write_text(task.read_text().replace("nn.Linear(128, 10)", "nn.Linear(64, 10)"))
        done = search.run("ray")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "the model, on" in done.stderr
        search.wait_for_the_last_process()


@pytest.mark.slow
def test_a_warning_while_ray_starts_asks_for_a_requeue(trained_tiny: Path, tmp_path: Path) -> None:
    with searching(tmp_path, trained_tiny, {**CHANGES, "dense": {"epochs": 2000}}) as search:
        shutil.rmtree(search.results / "dense")
        process = search.start("ray")
        search.wait_until(lambda search: (search.results / "dense" / "training").exists())
        process.send_signal(signal.SIGTERM)
        code, _, err = search.end()
        assert (code, err) == (os.EX_TEMPFAIL, "")
        search.wait_for_the_last_process()
