"""The Ray engine on real Ray: the same results as inline, and workers that die."""

import contextlib
import ipaddress
import math
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from engines_cli import SLOW_TASK, Search, searching

from autoprune.engines import load_engine
from autoprune.search.run import run_search
from autoprune.study.records import trained_of
from autoprune.training.evaluation import CPU_BATCH

pytestmark = pytest.mark.xdist_group("engines_ray")  # its fixtures take long: one process makes them

MEASURED = ["latency_ms", "train_time_s"]


def assert_same_trials(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one.drop(columns=MEASURED), other.drop(columns=MEASURED), check_exact=True)


def listen_on_loopback_only(pids: list[int]) -> bool:
    """Whether no other machine can connect to these processes."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                sockets.add(str(link.readlink()))
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                words = bytes.fromhex(fields[1].split(":")[0])
                address = ipaddress.ip_address(b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4)))
                addresses.append(getattr(address, "ipv4_mapped", None) or address)
    assert addresses
    return all(address.is_loopback for address in addresses)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, trained_tiny: Path) -> Iterator[Search]:
    """A study of 6 trials that ran on two workers, whose code prints there."""
    task = SLOW_TASK.replace(
        "    time.sleep(seconds)\n",
        "    import sys\n"
        "    if 'default_worker.py' in sys.argv[0]:\n"
        "        print('printed by the user')\n"
        "        os.write(2, b'written by a library\\n')\n"
        "    time.sleep(seconds)\n",
    )
    assert task != SLOW_TASK
    with searching(tmp_path_factory.mktemp("ray"), trained_tiny, {}, task=task) as search:
        done = search.run("ray")
        assert done.returncode == 0, done.stderr
        search.printed = (done.stdout, done.stderr)  # type: ignore[attr-defined]
        yield search


@pytest.mark.usefixtures("brief_latency")
def test_it_gives_the_results_of_the_inline_engine(whole: Search, trained_tiny: Path, tmp_path: Path) -> None:
    frame = whole.frame()
    assert frame["number"].tolist() == list(range(6))
    assert set(frame["state"]) == {"finished"}
    with searching(tmp_path / "inline", trained_tiny, {}) as inline:
        run_search(inline.space, inline.results.parent, load_engine("inline"))
        assert_same_trials(inline.frame(), frame)


def test_ray_says_nothing_and_leaves_nothing(whole: Search) -> None:
    out, err = whole.printed  # type: ignore[attr-defined]
    assert err == ""
    assert "6 of 6" in out or "6/6" in out
    for foreign in ("Ray ", "ray.", "Tune", "WARNING", "INFO", "pid=", "raylet"):
        assert foreign not in out
    whole.wait_for_the_last_process()
    assert list(whole.scratch.glob("autoprune*")) == []


def test_what_workers_print_is_in_the_logs_of_the_study(whole: Search) -> None:
    texts = [path.read_text() for path in (whole.results / "logs").glob("worker-*.log")]
    assert len(texts) == 2
    for text in texts:
        first, *rest = text.splitlines()
        assert first.startswith("--- trial ")
        assert rest.count("printed by the user") == rest.count("written by a library") > 0
    begun = re.findall(r"^--- trial (\d+), ", "".join(texts), re.MULTILINE)
    assert sorted(map(int, begun)) == list(range(6))


@pytest.mark.slow
def test_a_worker_that_is_killed_goes_on_from_its_last_epoch(trained_tiny: Path, tmp_path: Path) -> None:
    changes = {"search": {"trials": 2, "ladder": 0}, "training": {"epochs": 10}}
    with searching(tmp_path / "inline", trained_tiny, changes) as inline:
        assert inline.run("inline").returncode == 0
        expected = inline.frame()
    with searching(tmp_path / "ray", trained_tiny, changes, seconds=0.1) as search:
        process = search.start("ray")
        search.wait_until(lambda search: len(search.amid()) == 2)
        assert listen_on_loopback_only(search.leftovers())
        victim = int(search.log.read_text().split()[-1])
        assert victim != process.pid
        before = search.log.read_text().split()
        os.kill(victim, signal.SIGKILL)
        code, out, err = search.end()
        assert (code, err) == (0, "")
        log = (search.results / "logs" / "search.log").read_text()
        assert re.search(r" WARNING autoprune.engines.ray_tune: trial [01]: the worker process died: ", log)
        assert "worker" not in out
        assert_same_trials(search.frame(), expected)
        calls = search.log.read_text().split()
        assert calls.count(str(victim)) - before.count(str(victim)) <= 1
        n_calls = sum(pid != str(process.pid) for pid in calls)
        evaluated = math.ceil(150 / CPU_BATCH)
        per_epoch = 200 // 50 + evaluated
        whole = 2 * (10 * per_epoch + evaluated)
        assert whole <= n_calls <= whole + per_epoch, "only the epoch it was killed in is done again"


@pytest.mark.slow
def test_a_worker_that_can_not_make_ready_ends_the_search_with_its_cause(trained_tiny: Path, tmp_path: Path) -> None:
    task = SLOW_TASK.replace(
        "    digits = load_digits()\n",
        "    import sys\n"
        "    if 'default_worker.py' in sys.argv[0]:\n"
        "        raise OSError('no digits on this machine')\n"
        "    digits = load_digits()\n",
    )
    assert task != SLOW_TASK
    with searching(tmp_path / "ray", trained_tiny, {}, task=task) as search:
        done = search.run("ray")
        assert done.returncode == 2
        assert "a worker process could not make ready for trials: task.data: data raised OSError: no " in done.stderr
        assert "Traceback" not in done.stderr
        assert set(search.states()) == {"WAITING"}
        search.wait_for_the_last_process()


@pytest.mark.slow
def test_stopped_trials_tell_what_they_had_reached(trained_tiny: Path, tmp_path: Path) -> None:
    changes = {
        "training": {
            "epochs": 4,
            "lr_schedule": {"kind": "constant", "lr": [n * lr for n in range(1, 9) for lr in (0.01, 1e-7)]},
        },
        "pruning": [{"method": "neuron", "ratio": 0.5}],
        "search": {"trials": 10, "ladder": 0, "stop_early": True},
    }
    with searching(tmp_path, trained_tiny, changes) as search:
        assert search.run("ray").returncode == 0
        trials = [each for trial in search.trials() if (each := trained_of(trial)) is not None]
        assert len(trials) == 10
        (params,) = {each.result.cost.params for each in trials if each.result.cost and each.result.state != "stopped"}
        stopped = [each for each in trials if each.result.state == "stopped"]
        assert stopped
        for one in stopped:
            assert one.result.epochs == len(one.curve) < one.config.epochs == 4
            assert one.result.metric == one.curve[-1]
            assert one.result.kept == one.config.pruning.widths
            assert one.result.cost is not None
            assert one.result.cost.params == params


@pytest.mark.gpu
def test_four_workers_share_a_gpu(trained_tiny: Path, tmp_path: Path) -> None:
    changes = {"resources": {"workers": "auto", "gpus_per_trial": 0.25}, "search": {"trials": 8}}
    with searching(tmp_path, trained_tiny, changes, seconds=0.2) as search:
        process = search.start("ray")
        code, out, err = search.end()
        assert (code, err) == (0, ""), out
        assert search.states() == ["COMPLETE"] * 8
        workers = set(search.log.read_text().split()) - {str(process.pid)}
        assert len(workers) == 4 * torch.cuda.device_count()
