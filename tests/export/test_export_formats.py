"""Every export format, written and loaded again; ONNX Runtime and the network itself are the oracles."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import export_networks
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn

import autoprune.export.export as export_module
from autoprune.config.task import CallableRef
from autoprune.errors import ExportError
from autoprune.export import EXPORTERS, Manifest, export_model, read_manifest
from autoprune.formats._base import Exporter
from autoprune.formats.network import Network, max_difference, tensors
from autoprune.formats.saved_model import describe, load
from autoprune.network.call import call_model
from autoprune.network.outputs import plain_outputs

HERE = Path(__file__).parent
DIGITS = torch.from_numpy(load_digits().images[:6]).float().unsqueeze(1) / 16

TEXT = {"mask": torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]), "ids": torch.arange(12).reshape(3, 4)}
PAIR = (torch.linspace(-1, 1, 12).reshape(3, 4), torch.linspace(-2, 1, 15).reshape(3, 5))
# The factory's name, the width to which its network is cut, and inputs for it.
NETWORKS: dict[str, tuple[int, Any]] = {
    "cnn": (5, DIGITS),
    "mlp": (11, DIGITS[:1]),
    "text_net": (4, TEXT),
    "two_inputs": (2, PAIR),
    "caching": (4, PAIR[0]),
    "scoring": (4, PAIR[0]),
}


def cut(name: str, width: int) -> nn.Module:
    """A narrow network with batch-norm statistics that are not the initial ones."""
    torch.manual_seed(0)
    model: nn.Module = getattr(export_networks, name)(width)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.2, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model


def export(name: str, folder: Path, **options: Any) -> tuple[nn.Module, Manifest]:
    width, inputs = NETWORKS.get(name, (3, DIGITS))
    model = options.pop("model", None) or cut(name, width)
    dense = getattr(export_networks, name)()
    given: dict[str, Any] = {
        "example_inputs": inputs,
        "architecture": describe(dense, model, CallableRef(callable=f"export_networks:{name}", args={})),
        "metrics": {"accuracy": np.float64(0.97), "params": np.int64(123), "latency_ms": float("nan")},
        "source": {"study": "digits", "trial": 12, "params": {"lr": 0.1}},
        "base_dir": HERE,
    }
    return model, export_model(model, folder, **(given | options))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[nn.Module, Path, Manifest]]:
    """Every network in every format, exported once."""
    root = tmp_path_factory.mktemp("exports")
    networks = {}
    for name in NETWORKS:
        model, manifest = export(name, root / name)
        networks[name] = (model, root / name, manifest)
    return networks


@pytest.mark.parametrize("format_name", EXPORTERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_format_gives_the_networks_output_at_any_batch_size(
    exports: dict[str, tuple[nn.Module, Path, Manifest]], name: str, format_name: str
) -> None:
    model, folder, manifest = exports[name]
    record = manifest.formats[format_name]
    if name in ("caching", "scoring"):
        assert [output.name for output in manifest.outputs] == ["logits"]
    assert record.batch == "dynamic"
    assert record.note is None
    assert record.max_difference <= 1e-5
    assert all((folder / file).is_file() for file in record.files)
    inputs = NETWORKS[name][1]
    run = EXPORTERS[format_name].load(folder, Network(model, inputs, None, HERE))  # type: ignore[arg-type]
    model.eval()
    for size in (1, 2, 7):
        batch = torch.utils._pytree.tree_map(lambda x, n=size: x.repeat(n, *[1] * (x.dim() - 1))[:n], inputs)
        with torch.no_grad():
            expected = call_model(model, batch)
        got, wanted = (tensors(plain_outputs(outputs)) for outputs in (run(batch), expected))
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_the_onnx_file_stands_alone_and_names_its_tensors(
    exports: dict[str, tuple[nn.Module, Path, Manifest]], tmp_path: Path
) -> None:
    model, folder, manifest = exports["text_net"]
    alone = tmp_path / "alone.onnx"
    alone.write_bytes((folder / "model.onnx").read_bytes())
    onnx.checker.check_model(alone)
    session = onnxruntime.InferenceSession(alone, providers=["CPUExecutionProvider"])
    logits, hidden = session.run(["logits", "hidden_0"], {name: tensor.numpy() for name, tensor in TEXT.items()})
    expected = model.eval()(**TEXT)
    np.testing.assert_allclose(logits, expected["logits"].detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(hidden, expected["hidden"][0].detach().numpy(), atol=1e-5)
    assert {node.name: node.shape for node in session.get_inputs()} == {"mask": ["batch", 4], "ids": ["batch", 4]}
    assert [(record.name, record.shape, record.dtype) for record in manifest.inputs] == [
        ("mask", ("batch", 4), "float32"),
        ("ids", ("batch", 4), "int64"),
    ]
    assert [(record.name, record.shape) for record in manifest.outputs] == [
        ("logits", ("batch", 3)),
        ("hidden_0", ("batch", 4)),
    ]


def test_the_folder_is_rebuilt_as_a_module(exports: dict[str, tuple[nn.Module, Path, Manifest]]) -> None:
    model, folder, _ = exports["cnn"]
    rebuilt = load(folder, base_dir=HERE)
    assert rebuilt[0].out_channels == 5
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, rebuilt.state_dict()[name])


def test_the_tensors_of_a_sparse_network_are_plain(tmp_path: Path) -> None:
    model = cut("cnn", 5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[torch.rand_like(parameter) < 0.9] = 0
    export("cnn", tmp_path / "out", model=model, formats=("safetensors",))
    state, stored = model.state_dict(), load_file(tmp_path / "out/model.safetensors")
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in state.items())


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


def test_the_users_data_stay_out_of_the_files(tmp_path: Path) -> None:
    secret = torch.full((2, 1, 8, 8), 0.123456)
    export("mlp", tmp_path / "out", example_inputs=secret)
    for path in (tmp_path / "out").iterdir():
        assert secret[0, 0].numpy().tobytes() not in path.read_bytes()


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


def test_a_network_with_its_batch_written_in_is_exported_for_that_batch(tmp_path: Path) -> None:
    _, manifest = export("fixed_batch", tmp_path / "out")
    assert [record.batch for record in manifest.formats.values()] == [6, 6, 6]


def test_a_network_that_no_trace_generalises_is_exported_for_a_batch_of_one(tmp_path: Path) -> None:
    _, manifest = export("one_at_a_time", tmp_path / "out")
    assert manifest.formats["safetensors"].batch == "dynamic"
    for name in ("torch", "onnx"):
        assert manifest.formats[name].batch == 1
        assert "The batch is fixed. With any batch size: " in str(manifest.formats[name].note)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 1, 8, 8]


class Untraceable(nn.Module):
    """Decides by its input's values, which no trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1)) * (2 if x.sum() > 1 else 3)


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


class Spoiling(Exporter):
    """Hands its work to a real exporter, then changes one weight in the file."""

    name, files, packages = "spoilt", ("model.onnx",), ("onnx",)

    def write(self, folder: Path, network: Network, batch: int | None) -> None:
        EXPORTERS["onnx"].write(folder, network, batch)
        model = onnx.load(folder / "model.onnx")
        bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [10])
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.01, bias.name))
        onnx.save(model, folder / "model.onnx")

    def load(self, folder: Path, network: Network) -> Any:
        return EXPORTERS["onnx"].load(folder, network)


def test_a_file_that_differs_from_the_network_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "EXPORTERS", {**EXPORTERS, "spoilt": Spoiling()})
    folder = tmp_path / "out"
    export("mlp", folder, formats=["safetensors"])
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ExportError, match=r"output differs from the network's by 0\.01, 0\.0001 is allowed"):
        export("mlp", folder, formats=["safetensors", "spoilt"])
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


def test_a_missing_extra_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = r"'onnx' needs onnxruntime, not installed here: pip install 'autoprune\[export\]'"
    with pytest.raises(ExportError, match=said):
        export("mlp", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("formats", "said"),
    [
        (["onx"], "unknown export format 'onx' .did you mean 'onnx'.*Known: safetensors, onnx, torch"),
        ([], "at least one"),
    ],
)
def test_unknown_formats_are_refused(tmp_path: Path, formats: list[str], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        export("mlp", tmp_path / "out", formats=formats)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ("{", "Invalid JSON"), ('{"schema": "autoprune-export-1"}', "source: Field required")],
)
def test_a_manifest_that_cannot_be_read_is_explained(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ExportError, match=said):
        read_manifest(tmp_path)


def test_differences_between_outputs() -> None:
    nan = float("nan")
    assert max_difference(torch.tensor([1.0, nan]), torch.tensor([1.5, nan])) == (0.5, 1.5)
    assert max_difference({"a": torch.tensor([nan])}, {"a": torch.tensor([1.0])})[0] == float("inf")
    inf = torch.tensor([float("inf")])
    assert max_difference(inf, inf)[0] == 0.0
    assert max_difference(inf, -inf)[0] == float("inf")
    for other in (torch.zeros(2, 1), torch.zeros(2, dtype=torch.float64), [torch.zeros(2)] * 2):
        with pytest.raises(ExportError, match="shapes and dtypes"):
            max_difference(other, torch.zeros(2))
