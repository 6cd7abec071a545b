"""An export: verified formats and a manifest in one folder, which appears whole or not at all."""

import hashlib
import json
from pathlib import Path
from typing import Any

import format_networks
import numpy as np
import pytest
import torch
from format_networks import DIGITS, NETWORKS, Untraceable, cut
from torch import nn

from autoprune.config.task import CallableRef
from autoprune.errors import ExportError
from autoprune.export import Manifest, export_model, read_manifest
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.saved_model import load

pytestmark = pytest.mark.xdist_group("export_model")  # its fixtures take long: one process makes them

BASE_DIR = Path(format_networks.__file__).parent


def export(name: str, folder: Path, **options: Any) -> tuple[nn.Module, Manifest]:
    width, inputs = NETWORKS.get(name, (3, DIGITS))
    model = options.pop("model", None) or cut(name, width)
    dense = getattr(format_networks, name)()
    given: dict[str, Any] = {
        "example_inputs": inputs,
        "architecture": architecture_diff(dense, model, CallableRef(callable=f"format_networks:{name}", args={})),
        "metrics": {"accuracy": np.float64(0.97), "params": np.int64(123), "latency_ms": float("nan")},
        "source": {"study": "digits", "trial": 12, "params": {"lr": 0.1}},
        "base_dir": BASE_DIR,
    }
    return model, export_model(model, folder, **(given | options))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[nn.Module, Path, Manifest]]:
    """Two networks in every format, exported once."""
    root = tmp_path_factory.mktemp("exports")
    networks = {}
    for name in ("cnn", "text_net"):
        model, manifest = export(name, root / name)
        networks[name] = (model, root / name, manifest)
    return networks


def test_the_folder_is_rebuilt_as_a_module(exports: dict[str, tuple[nn.Module, Path, Manifest]]) -> None:
    model, folder, _ = exports["cnn"]
    rebuilt = load(folder, base_dir=BASE_DIR)
    assert rebuilt[0].out_channels == 5
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, rebuilt.state_dict()[name])


def test_the_manifest_tells_where_the_files_come_from(exports: dict[str, tuple[nn.Module, Path, Manifest]]) -> None:
    _, folder, manifest = exports["cnn"]
    assert read_manifest(folder) == manifest
    raw = json.loads((folder / "manifest.json").read_text())
    assert raw["metrics"] == {"accuracy": 0.97, "params": 123, "latency_ms": None}
    assert raw["source"] == {"study": "digits", "trial": 12, "params": {"lr": 0.1}}
    assert raw["versions"]["torch"] == torch.__version__
    assert {"autoprune", "python", "onnx", "onnxruntime", "safetensors"} <= set(raw["versions"])
    assert set(raw["files"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    for name, record in raw["files"].items():
        content = (folder / name).read_bytes()
        assert record == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_the_manifest_describes_inputs_and_outputs(exports: dict[str, tuple[nn.Module, Path, Manifest]]) -> None:
    manifest = exports["text_net"][2]
    assert [(record.name, record.shape, record.dtype) for record in manifest.inputs] == [
        ("mask", ("batch", 4), "float32"),
        ("ids", ("batch", 4), "int64"),
    ]
    assert [(record.name, record.shape) for record in manifest.outputs] == [
        ("logits", ("batch", 3)),
        ("hidden_0", ("batch", 4)),
    ]


def test_exporting_prints_nothing_and_leaves_the_network_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = cut("cnn", 5).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export("cnn", tmp_path / "out", model=model)
    assert capfd.readouterr() == ("", "")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_earlier_export_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export("cnn", folder, formats=["torch"])
    _, manifest = export("mlp", folder, formats=["safetensors"])
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "architecture.json", "manifest.json"}
    assert read_manifest(folder) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_cannot_be_traced_is_refused_and_nothing_stays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = "'torch' does not reproduce the network. With any batch size or a batch of 1 or .*: .*leave 'torch' out"
    with pytest.raises(ExportError, match=said):
        export_model(
            Untraceable(),
            tmp_path / "out",
            example_inputs=DIGITS,
            architecture=None,  # type: ignore[arg-type]
            formats=["torch"],
            metrics={},
            source={},
        )
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_format_that_fails_leaves_the_earlier_export(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export("mlp", folder, formats=["safetensors"])
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ExportError, match="'torch' does not reproduce the network"):
        export("mlp", folder, model=Untraceable(), formats=["torch"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(ExportError, match="must be empty or hold an earlier export, got other files"):
        export("mlp", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    with pytest.raises(ExportError, match="an export needs a folder, got a file"):
        export("mlp", tmp_path / "manifest.json")
    with pytest.raises(ExportError, match="can't be written"):
        export("mlp", tmp_path / "manifest.json" / "out")


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    export("mlp", tmp_path, formats=["safetensors"])
    assert (tmp_path / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ("{", "Invalid JSON"), ('{"schema": "autoprune-export-1"}', "source: Field required")],
)
def test_a_manifest_that_cannot_be_read_is_explained(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ExportError, match=said):
        read_manifest(tmp_path)
