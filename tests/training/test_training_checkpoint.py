"""Checkpoints: whole or absent, and never executed."""

import hashlib
import io
import pickle
from pathlib import Path

import pytest
import torch

from autoprune.training.checkpoint import _MAGIC, load_checkpoint, save_checkpoint

STATE = {"epoch": 3, "losses": [0.5, 0.25], "model": {"weight": torch.arange(6.0).view(2, 3)}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "trial.checkpoint"
    save_checkpoint(path, STATE)
    return path


def test_round_trip(path: Path) -> None:
    state = load_checkpoint(path)
    assert state is not None
    assert (state["epoch"], state["losses"]) == (3, [0.5, 0.25])
    assert torch.equal(state["model"]["weight"], STATE["model"]["weight"])


def test_overwritten_as_a_whole_with_nothing_left_beside_it(path: Path) -> None:
    save_checkpoint(path, {"epoch": 4})
    assert load_checkpoint(path) == {"epoch": 4}
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(path: Path) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_checkpoint(path, {"epoch": lambda: 4})
    state = load_checkpoint(path)
    assert state is not None
    assert state["epoch"] == 3
    assert list(path.parent.iterdir()) == [path]


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("length", [0, 10, 40, 60, 500, -1])
def test_a_truncated_file_is_no_state(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    assert load_checkpoint(path) is None


def test_a_flipped_bit_is_no_state(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for position in (3, 30, len(content) // 2, len(content) - 1):
        changed = content.copy()
        changed[position] ^= 1
        path.write_bytes(changed)
        assert load_checkpoint(path) is None


def test_a_foreign_file_is_no_state(path: Path) -> None:
    torch.save(STATE, path)
    assert load_checkpoint(path) is None


class Exploit:
    """Pickles to a call."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("through_torch", [True, False])
def test_nothing_in_the_file_is_executed(path: Path, through_torch: bool) -> None:
    target = path.with_name("executed")
    buffer = io.BytesIO()
    if through_torch:
        torch.save({"model": Exploit(target)}, buffer)
    else:
        pickle.dump({"model": Exploit(target)}, buffer, protocol=2)
    path.write_bytes(_MAGIC + hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    assert load_checkpoint(path) is None
    assert not target.exists()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_checkpoint(tmp_path / "none" / "checkpoint", STATE)
