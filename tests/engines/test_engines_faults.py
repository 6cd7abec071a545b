"""Trials that kill, hang or outgrow their worker, on real Ray: each is ended and told, and the study goes on."""

from collections import Counter
from pathlib import Path

import pytest
from engines_cli import SLOW_TASK, searching

DEADLY_TASK = SLOW_TASK.replace(
    "    time.sleep(seconds)\n",
    "    time.sleep(seconds)\n"
    "    if outputs.requires_grad and open(log).read().split().count(str(os.getpid())) > 7:\n"
    "        os.kill(os.getpid(), 9)\n",
)
"""Its loss kills the process with SIGKILL in the second epoch that the process trains."""


@pytest.mark.slow
@pytest.mark.parametrize(("max_retries", "state", "n_epochs"), [(3, "finished", 4), (2, "failed", 3)])
def test_a_trial_is_taken_up_by_new_workers_so_many_times(
    trained_tiny: Path, tmp_path: Path, max_retries: int, state: str, n_epochs: int
) -> None:
    assert DEADLY_TASK != SLOW_TASK
    changes = {
        "search": {"trials": 1, "ladder": 0, "max_retries": max_retries},
        "training": {"epochs": 4},
        "resources": {"workers": 1},
    }
    with searching(tmp_path, trained_tiny, changes, task=DEADLY_TASK) as search:
        done = search.run("ray")
        assert done.returncode == (1 if state == "failed" else 0), done.stderr
        assert ("no trial has finished: 1 failed." in done.stderr) == (state == "failed")
        (row,) = search.frame().to_dict("records")
        assert (row["state"], row["epochs"]) == (state, n_epochs)
        calls = Counter(search.log.read_text().split())
        assert search.process is not None
        calls.pop(str(search.process.pid))  # the check before the study
        assert len(calls) == max_retries + 1
        if state == "failed":
            assert row["error"].startswith("the worker process died: without a trace, as by signal 9, ")
        search.wait_for_the_last_process()


DEATHS = {
    "import ctypes; ctypes.string_at(0)": "the worker process died: signal 11, SIGSEGV (tiny_task.py:",
    "os.abort()": "the worker process died: signal 6, SIGABRT (tiny_task.py:",
    "os._exit(3)": "the worker process died: os._exit(3) (tiny_task.py:",
    "os.kill(os.getpid(), 15)": "the worker process died: signal 15, SIGTERM",
    "import sys; sys.exit(3)": "SystemExit: 3 (tiny_task.py:",
    "raise KeyboardInterrupt": "KeyboardInterrupt (tiny_task.py:",
}

DYING_TASK = SLOW_TASK.replace(
    "    time.sleep(seconds)\n",
    "    import sys\n"
    "    from pathlib import Path\n"
    "    if 'default_worker.py' in sys.argv[0] and outputs.requires_grad and len(targets) == 50:\n"
    "        left = Path(log).with_name('left')\n"
    "        way, _, rest = left.read_text().partition('\\n')\n"
    "        left.write_text(rest)\n"
    "        exec(compile(way, __file__, 'exec'))\n",
)
"""Its loss ends each trial in another way, until none is left."""


@pytest.mark.slow
def test_a_worker_that_died_says_how(trained_tiny: Path, tmp_path: Path) -> None:
    changes = {
        "search": {"trials": len(DEATHS) + 1, "ladder": 0, "max_retries": 0, "max_failures": 50},
        "resources": {"workers": 1},
    }
    with searching(tmp_path, trained_tiny, changes, task=DYING_TASK) as search:
        (tmp_path / "left").write_text("\n".join(DEATHS))
        done = search.run("ray")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        frame = search.frame()
        errors = frame["error"].tolist()
        assert frame["state"].tolist() == ["failed"] * len(DEATHS) + ["finished"]
        for error, (way, expected) in zip(errors, DEATHS.items(), strict=False):
            assert error.startswith(expected), (way, error)
        assert f"{len(DEATHS)} of {len(DEATHS) + 1} trials failed; the first, trial 0: {errors[0]}." in done.stdout
        log = (search.results / "logs" / "search.log").read_text()
        assert log.count("the worker process died: ") == 2 * 4
        assert list((search.results / "logs").glob("exit-*")) == []


HANGING_TASK = SLOW_TASK.replace(
    "    time.sleep(seconds)\n",
    "    if outputs.requires_grad and len(list(Path(log).parent.glob('hung*'))) < 1:\n"
    "        Path(log).with_name(f'hung{os.getpid()}').touch()\n"
    "        HANG\n",
).replace("    import os\n", "    import os\n    from pathlib import Path\n")
"""Its loss hangs once, in the first trial that calls it."""

HANGS = {
    "in Python": ("time.sleep(600)  # HERE", r"TrialTimeout: search.trial_timeout of 3 s is over (tiny_task.py:"),
    "where no signal reaches": (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM}); time.sleep(600)",
        "search.trial_timeout of 3 s is over, and its process, deaf to that, was killed",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("hang", HANGS)
def test_a_trial_that_hangs_is_ended_and_the_others_go_on(trained_tiny: Path, tmp_path: Path, hang: str) -> None:
    statement, message = HANGS[hang]
    task = HANGING_TASK.replace("HANG", statement)
    changes = {"search": {"trials": 3, "ladder": 0, "trial_timeout": 3.0}, "resources": {"workers": 1}}
    with searching(tmp_path, trained_tiny, changes, task=task) as search:
        done = search.run("ray")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        frame = search.frame()
        assert frame["state"].tolist() == ["failed", "finished", "finished"]
        assert frame["error"][0].startswith(message)
        assert len(list(tmp_path.glob("hung*"))) == 1, "it is not tried again"
        n_workers = len(set(search.log.read_text().split())) - 1
        assert n_workers == (1 if hang == "in Python" else 2)
        search.wait_for_the_last_process()


GREEDY_TASK = SLOW_TASK.replace(
    "    time.sleep(seconds)\n",
    "    if outputs.requires_grad and not Path(log).with_name('ate').exists():\n"
    "        Path(log).with_name('ate').touch()\n"
    "        eaten = [torch.zeros(2**22) for _ in range(1000)]  # 16 GB\n",
).replace("    import os\n", "    import os\n    from pathlib import Path\n")
"""Its loss asks for more and more memory, in the first trial that calls it."""


@pytest.mark.slow
def test_a_trial_that_eats_memory_is_stopped_by_its_limit(trained_tiny: Path, tmp_path: Path) -> None:
    changes = {
        "search": {"trials": 3, "ladder": 0},
        "resources": {"workers": 1, "memory_per_trial_gib": 0.5},
    }
    with searching(tmp_path, trained_tiny, changes, task=GREEDY_TASK) as search:
        done = search.run("ray")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        frame = search.frame()
        assert frame["state"].tolist() == ["failed", "finished", "finished"]
        assert frame["error"][0].startswith("over resources.memory_per_trial_gib = 0.5: RuntimeError: ")
        assert "(tiny_task.py:" in frame["error"][0]
        assert len(set(search.log.read_text().split())) == 2, "the worker goes on"


ONCE_DEADLY_TASK = SLOW_TASK.replace(
    "    time.sleep(seconds)\n",
    "    time.sleep(seconds)\n"
    "    if outputs.requires_grad and not os.path.exists(log + '.killed'):\n"
    "        open(log + '.killed', 'w').close()\n"
    "        os.kill(os.getpid(), 9)\n",
)
"""Its loss kills the first process that trains."""


@pytest.mark.slow
def test_a_worker_that_died_is_replaced_though_trials_are_shorter_than_its_start(
    trained_tiny: Path, tmp_path: Path
) -> None:
    changes = {
        "search": {"trials": 40, "sampler": "random", "start": "dense", "ladder": 0},
        "training": {"epochs": 1},
        "resources": {"workers": 2},
    }
    with searching(tmp_path, trained_tiny, changes, seconds=0.1, task=ONCE_DEADLY_TASK) as search:
        done = search.run("ray")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert set(search.frame()["state"]) == {"finished"}
        assert search.process is not None
        calls = [pid for pid in search.log.read_text().split() if pid != str(search.process.pid)]
        assert len(set(calls[-50:])) == 2
