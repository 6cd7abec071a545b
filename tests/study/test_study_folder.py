"""The study folder: what lies where, what is read back, and who may write."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from autoprune.errors import StudyError
from autoprune.study.folder import StudyFolder
from autoprune.trial import Replicate

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom autoprune.study.folder import StudyFolder\n"
    "with StudyFolder(Path(sys.argv[1])).lock():\n    print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    found = StudyFolder(tmp_path / "results" / "s")
    found.create()
    return found


def take(folder: StudyFolder) -> None:
    with folder.lock():
        pass


def test_names_on_disk(folder: StudyFolder) -> None:
    def name(path: Path) -> str:
        return str(path.relative_to(folder.root))

    assert [name(path) for path in (folder.space, folder.database, folder.trials, folder.front)] == [
        "space.yaml",
        "study.db",
        "trials.parquet",
        "front.parquet",
    ]
    assert (name(folder.model(None)), name(folder.model(7))) == ("dense", "checkpoints/7")
    assert name(folder.training_checkpoint(7)) == "checkpoints/7.training"
    replicate = Replicate(7, 2, from_dense=True)
    assert name(folder.record(Replicate(7, 0))) == "certification/7-seed0/trial.json"
    assert name(folder.training_checkpoint(replicate)) == "certification/7-seed2-dense.training"
    assert name(folder.replicate(replicate)) == "certification/7-seed2-dense.json"


def test_create_may_be_repeated_and_leaves_only_folders(folder: StudyFolder) -> None:
    (folder.dense / "model.safetensors").write_bytes(b"kept")
    folder.create()
    assert (folder.dense / "model.safetensors").read_bytes() == b"kept"
    assert sorted(path.name for path in folder.root.iterdir()) == ["checkpoints", "dense"]


def test_paths_hold_when_the_process_goes_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = StudyFolder(Path("results/s"))
    monkeypatch.chdir("/")
    assert folder.root == tmp_path / "results" / "s"


@pytest.mark.parametrize("blocked", ["results", "results/s", "results/s/dense"])
def test_a_file_where_a_folder_must_be(tmp_path: Path, blocked: str) -> None:
    (tmp_path / blocked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocked).write_text("in the way")
    folder = StudyFolder(tmp_path / "results" / "s")
    with pytest.raises(StudyError, match=r"results/s: can't be written: .*\. Name another folder with --results\."):
        folder.create()
    assert (tmp_path / blocked).read_text() == "in the way"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write to")
def test_an_unwritable_folder() -> None:
    with pytest.raises(StudyError, match=r"/proc/s: can't be written"):
        StudyFolder(Path("/proc/s")).create()


def test_existing(folder: StudyFolder) -> None:
    with pytest.raises(StudyError, match=r"not a study \(it holds no space\.yaml\)\. `autoprune search space\.yaml`"):
        StudyFolder.existing(folder.root)
    folder.space.write_text("study: s\n")
    assert StudyFolder.existing(folder.root).root == folder.root


def test_the_users_modules_are_found_after_the_project_has_moved(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "project" / "results" / "s")
    folder.create()
    folder.write_json(folder.origin, {"base_dir": "../.."})
    assert folder.base_dir == tmp_path / "project"
    (tmp_path / "project").rename(tmp_path / "moved")
    assert StudyFolder(tmp_path / "moved" / "results" / "s").base_dir == tmp_path / "moved"


# JSON and Parquet.


def test_json_round_trip(folder: StudyFolder) -> None:
    value = {"dense": {"accuracy": 0.1 + 0.2, "params": 2**60}, "names": ["é", None, True], "loss": float("inf")}
    folder.write_json(folder.plan, value)
    assert folder.read_json(folder.plan) == value


@pytest.mark.parametrize("damage", [b"", b'{"dense": ', b"\xff\xfe"])
def test_damaged_json(folder: StudyFolder, damage: bytes) -> None:
    folder.plan.write_bytes(damage)
    with pytest.raises(StudyError, match=r"plan\.json: can't be read: .*Restore it, or start the study anew"):
        folder.read_json(folder.plan)


def test_missing_json(folder: StudyFolder) -> None:
    with pytest.raises(StudyError, match=r"plan\.json: can't be read: .*No such file"):
        folder.read_json(folder.plan)


FRAME = pd.DataFrame(
    {
        "number": pd.array([0, 1, 2], dtype="int64"),
        "state": pd.array(["finished", "failed", "stopped"], dtype="str"),
        "accuracy": pd.array([0.1 + 0.2, None, 1.0], dtype="float64"),
        "params": pd.array([2**53 + 1, None, 0], dtype="Int64"),
        "error": pd.array([None, "OutOfMemoryError: é", None], dtype="str"),
        "on_front": [True, False, False],
        "param.kind": pd.Series(["cosine", None, "step"], dtype="str"),
        "seed": pd.array([2**62, 0, 1], dtype="int64"),
    },
    index=[5, 6, 7],
)


def test_parquet_keeps_values_and_types(folder: StudyFolder) -> None:
    folder.write_frame(folder.trials, FRAME)
    pd.testing.assert_frame_equal(folder.read_frame(folder.trials), FRAME.reset_index(drop=True))


def test_parquet_is_plain_for_other_readers(folder: StudyFolder) -> None:
    folder.write_frame(folder.trials, FRAME)
    table = pq.read_table(folder.trials)
    assert table.column_names == list(FRAME.columns)
    assert table.column("params").to_pylist() == [2**53 + 1, None, 0]


def test_parquet_without_rows_keeps_its_columns(folder: StudyFolder) -> None:
    folder.write_frame(folder.front, FRAME.iloc[:0])
    found = folder.read_frame(folder.front)
    assert len(found) == 0
    assert found.dtypes.to_dict() == FRAME.dtypes.to_dict()


@pytest.mark.parametrize("n_bytes", [0, 3, 100, -1])
def test_damaged_parquet(folder: StudyFolder, n_bytes: int) -> None:
    folder.write_frame(folder.trials, FRAME)
    folder.trials.write_bytes(folder.trials.read_bytes()[:n_bytes])
    with pytest.raises(
        StudyError, match=r"trials\.parquet: can't be read: (?s:.*)`autoprune search` on its space file"
    ):
        folder.read_frame(folder.trials)


def test_missing_parquet(folder: StudyFolder) -> None:
    with pytest.raises(StudyError, match=r"front\.parquet: can't be read"):
        folder.read_frame(folder.front)


def test_a_frame_that_cannot_be_written_leaves_the_old_one(folder: StudyFolder) -> None:
    folder.write_frame(folder.trials, FRAME)
    with pytest.raises(Exception, match="mixed"):
        folder.write_frame(folder.trials, pd.DataFrame({"mixed": [1, "a", object()]}))
    assert len(folder.read_frame(folder.trials)) == 3


# The lock.


def test_lock_taken_by_a_living_process_and_left_by_a_dead_one(folder: StudyFolder) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, folder.root], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        owner = f"{holder.pid} on {socket.gethostname()}"
        rule = rf"results/s is being searched by process {owner}\. Wait for it to end, or stop it\."
        with pytest.raises(StudyError, match=rule):
            take(folder)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with folder.lock():
            assert (folder.root / "lock").read_text() == f"{os.getpid()} on {socket.gethostname()}"


def test_lock_of_a_dead_process_is_free_though_a_child_of_it_lives(folder: StudyFolder) -> None:
    # the child names itself: until it runs, it has not let go of what it was forked with
    forking = HOLD.replace("print('held'", "import os; os.fork() and time.sleep(60); print(os.getpid()")
    with subprocess.Popen([sys.executable, "-c", forking, folder.root], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        with pytest.raises(StudyError, match=f"process {holder.pid} on"):
            take(folder)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        try:
            take(folder)
        finally:
            os.kill(child, signal.SIGKILL)


def test_lock_is_given_back(folder: StudyFolder) -> None:
    with folder.lock(), pytest.raises(StudyError, match=f"process {os.getpid()}"):
        take(StudyFolder(folder.root))
    with pytest.raises(ZeroDivisionError), folder.lock():
        _ = 1 / 0
    take(folder)
