"""A file is the old one or the new one, whatever happens while it is written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autoprune.files import remove_unfinished, replacing


def test_writes_a_new_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.bin") as handle:
        handle.write(b"\0new")
    assert (tmp_path / "a.bin").read_bytes() == b"\0new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_the_old_file_stands_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with replacing(path) as handle:
        handle.write(b"new")
        handle.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replacing(path) as handle:
            handle.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom autoprune.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as handle:\n"
        "    handle.write(b'half'); handle.flush(); print('half', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        os.kill(process.pid, signal.SIGKILL)
    assert path.read_bytes() == b"old"
    with replacing(path) as handle:
        handle.write(b"new")
    assert path.read_bytes() == b"new"
    (tmp_path / ".gitignore").touch()
    assert len(list(tmp_path.iterdir())) == 3
    remove_unfinished(tmp_path.parent)
    assert sorted(found.name for found in tmp_path.iterdir()) == [".gitignore", "a"]


def test_others_may_read_it(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as handle:
        handle.write(b"new")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_no_such_folder(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "none" / "a"):
            pass

    with pytest.raises(FileNotFoundError):
        write()


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    def write() -> None:
        with replacing(tmp_path / "a") as handle:
            handle.write(b"new")

    with pytest.raises(IsADirectoryError):
        write()
    assert [found.name for found in tmp_path.iterdir()] == ["a"]
