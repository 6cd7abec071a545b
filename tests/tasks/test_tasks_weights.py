"""Weights are read from every format, and what doesn't fit is named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autoprune.errors import TaskError
from autoprune.tasks.weights import load_weights


def network(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, 2))


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("w.safetensors", lambda state, path: save_file(dict(state), path)),
        ("w.pt", torch.save),
        ("w.pth", lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path)),
    ],
)
def test_formats(name: str, save: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = network(), network()
    save(source.state_dict(), tmp_path / name)
    monkeypatch.setenv("WEIGHTS_FOLDER", str(tmp_path))
    load_weights(target, f"${{WEIGHTS_FOLDER}}/{name}")
    for expected, got in zip(source.state_dict().values(), target.state_dict().values(), strict=True):
        assert torch.equal(expected, got)


def test_batch_counts_may_be_missing(tmp_path: Path) -> None:
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    save_file(state, tmp_path / "w.safetensors")
    load_weights(network(), tmp_path / "w.safetensors")


def test_names_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = network(width=4).state_dict() | {f"extra{i}": torch.zeros(1) for i in range(5)}
    del state["3.bias"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(TaskError) as caught:
        load_weights(network(), tmp_path / "w.safetensors")
    message = str(caught.value)
    assert "1 missing (3.bias)" in message
    assert "5 unexpected (extra0, extra1, extra2, ...)" in message
    assert "7 of another shape" in message
    assert "0.weight (4, 1, 3, 3) instead of (3, 1, 3, 3)" in message


class Unsafe:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("none.pt", lambda path: None, "no file"),
        ("w.bin", lambda path: path.touch(), "must be a .safetensors, .pt or .pth file"),
        ("w.safetensors", lambda path: path.write_bytes(b"nonsense"), "can't be read"),
        ("w.pt", lambda path: path.write_bytes(b"nonsense"), "holds more than tensors, or is damaged"),
        ("w.pt", lambda path: path.touch(), "can't be read"),
        ("w.pt", lambda path: torch.save(Unsafe(), path), "holds more than tensors"),
        ("w.pt", lambda path: torch.save([1, 2], path), "must hold tensors by name"),
        ("w.pt", lambda path: torch.save({"a": 1}, path), "must hold tensors by name"),
    ],
)
def test_bad_files(name: str, write: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / name)
    with pytest.raises(TaskError, match=message):
        load_weights(network(), tmp_path / name)
    assert capsys.readouterr().out == ""


class Stateful(nn.Linear):
    """Has state beside its tensors."""

    scale = 1.0

    def get_extra_state(self) -> dict[str, float]:
        return {"scale": self.scale}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.scale = state["scale"]


def test_extra_state_is_read_and_missed(tmp_path: Path) -> None:
    source, target = nn.Sequential(Stateful(2, 2)), nn.Sequential(Stateful(2, 2))
    source[0].scale = 0.25
    torch.save(source.state_dict(), tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt")
    assert target[0].scale == 0.25
    assert torch.equal(target[0].weight, source[0].weight)
    save_file({name: t for name, t in source.state_dict().items() if "extra" not in name}, tmp_path / "w.safetensors")
    with pytest.raises(TaskError, match=r"1 missing \(0\._extra_state\)"):
        load_weights(target, tmp_path / "w.safetensors")
