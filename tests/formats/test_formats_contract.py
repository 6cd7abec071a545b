"""Every format of the registry, written and loaded again; ONNX Runtime and the network itself are the oracles."""

import sys
from pathlib import Path
from typing import Any

import format_networks
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from format_networks import DIGITS, NETWORKS, TEXT, Untraceable, cut
from safetensors.torch import load_file
from torch import nn

from autoprune.config.task import CallableRef
from autoprune.errors import ExportError
from autoprune.formats._base import Format
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.network import Network, max_difference, tensors
from autoprune.formats.registry import FORMATS, find_formats
from autoprune.formats.verify import FormatRecord, write_verified
from autoprune.network.call import call_model
from autoprune.network.outputs import plain_outputs

pytestmark = pytest.mark.xdist_group("formats_contract")  # its fixtures take long: one process makes them

BASE_DIR = Path(format_networks.__file__).parent


def network_of(name: str, model: nn.Module | None = None, inputs: Any = None) -> Network:
    width, own_inputs = NETWORKS.get(name, (3, DIGITS))
    model = model or cut(name, width)
    dense = getattr(format_networks, name)()
    architecture = architecture_diff(dense, model, CallableRef(callable=f"format_networks:{name}", args={}))
    return Network(model, own_inputs if inputs is None else inputs, architecture, BASE_DIR)


def write(network: Network, folder: Path, name: str) -> FormatRecord:
    folder.mkdir(exist_ok=True)
    return write_verified(FORMATS[name], network, folder, 1e-4)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Network, Path, dict[str, FormatRecord]]]:
    """Every network in every format, written once."""
    root = tmp_path_factory.mktemp("formats")
    networks = {}
    for name in NETWORKS:
        network = network_of(name)
        networks[name] = (network, root / name, {each: write(network, root / name, each) for each in FORMATS})
    return networks


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_format_gives_the_networks_output_at_any_batch_size(
    written: dict[str, tuple[Network, Path, dict[str, FormatRecord]]], name: str, format_name: str
) -> None:
    network, folder, records = written[name]
    record = records[format_name]
    if name in ("caching", "scoring"):
        assert network.output_names() == ["logits"]
    assert record.batch == "dynamic"
    assert record.note is None
    assert record.max_difference <= 1e-5
    assert record.files == FORMATS[format_name].files
    assert all((folder / file).is_file() for file in record.files)
    inputs, model = NETWORKS[name][1], cut(name, NETWORKS[name][0]).eval()
    run = FORMATS[format_name].load(folder, BASE_DIR)
    for size in (1, 2, 7):
        batch = torch.utils._pytree.tree_map(lambda x, n=size: x.repeat(n, *[1] * (x.dim() - 1))[:n], inputs)
        with torch.no_grad():
            expected = call_model(model, batch)
        got, wanted = (tensors(plain_outputs(outputs)) for outputs in (run(batch), expected))
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_only_the_named_files_are_written_and_none_by_half(tmp_path: Path, name: str) -> None:
    network = network_of("mlp")
    write(network, tmp_path, name)
    assert {path.name for path in tmp_path.iterdir()} == set(FORMATS[name].files)
    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    write(network, tmp_path, name)
    after = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in after)  # a new file took the old one's place


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_format_needs_is_installed(name: str) -> None:
    assert FORMATS[name].missing_packages() == []


def test_the_onnx_file_stands_alone_and_names_its_tensors(
    written: dict[str, tuple[Network, Path, dict[str, FormatRecord]]], tmp_path: Path
) -> None:
    network, folder, _ = written["text_net"]
    alone = tmp_path / "alone.onnx"
    alone.write_bytes((folder / "model.onnx").read_bytes())
    onnx.checker.check_model(alone)
    session = onnxruntime.InferenceSession(alone, providers=["CPUExecutionProvider"])
    logits, hidden = session.run(["logits", "hidden_0"], {name: tensor.numpy() for name, tensor in TEXT.items()})
    expected = network.run(TEXT)
    np.testing.assert_allclose(logits, expected["logits"].numpy(), atol=1e-5)
    np.testing.assert_allclose(hidden, expected["hidden"][0].numpy(), atol=1e-5)
    assert {node.name: node.shape for node in session.get_inputs()} == {"mask": ["batch", 4], "ids": ["batch", 4]}


def test_the_tensors_of_a_sparse_network_are_plain(tmp_path: Path) -> None:
    model = cut("cnn", 5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[torch.rand_like(parameter) < 0.9] = 0
    write(network_of("cnn", model), tmp_path / "out", "safetensors")
    state, stored = model.state_dict(), load_file(tmp_path / "out/model.safetensors")
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("name", FORMATS)
def test_the_users_data_stay_out_of_the_files(tmp_path: Path, name: str) -> None:
    secret = torch.full((2, 1, 8, 8), 0.123456)
    write(network_of("mlp", inputs=secret), tmp_path, name)
    for path in tmp_path.iterdir():
        assert secret[0, 0].numpy().tobytes() not in path.read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_a_network_with_its_batch_written_in_is_written_for_that_batch(tmp_path: Path, name: str) -> None:
    assert write(network_of("fixed_batch"), tmp_path, name).batch == 6


def test_a_network_that_no_trace_generalises_is_written_for_a_batch_of_one(tmp_path: Path) -> None:
    network = network_of("one_at_a_time")
    assert write(network, tmp_path, "safetensors").batch == "dynamic"
    for name in ("torch", "onnx"):
        record = write(network, tmp_path, name)
        assert record.batch == 1
        assert "The batch is fixed. With any batch size: " in str(record.note)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 1, 8, 8]


def test_what_can_not_be_traced_is_refused(tmp_path: Path) -> None:
    network = Network(Untraceable(), DIGITS, None)  # type: ignore[arg-type]
    said = "'torch' does not reproduce the network. With any batch size or a batch of 1 or .*: .*leave 'torch' out"
    with pytest.raises(ExportError, match=said):
        write(network, tmp_path, "torch")


class Spoiling(Format):
    """Hands its work to a real format, then changes one weight in the file."""

    name, files, packages = "spoilt", ("model.onnx",), ("onnx",)

    def write(self, network: Network, folder: Path, batch: int | None = None) -> None:
        FORMATS["onnx"].write(network, folder, batch)
        model = onnx.load(folder / "model.onnx")
        bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [10])
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.01, bias.name))
        onnx.save(model, folder / "model.onnx")

    def load(self, folder: Path, base_dir: Path | None = None) -> Any:
        return FORMATS["onnx"].load(folder, base_dir)


def test_a_file_that_differs_from_the_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"output differs from the network's by 0\.01, 0\.0001 is allowed"):
        write_verified(Spoiling(), network_of("mlp"), tmp_path, 1e-4)


def test_a_missing_extra_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = r"'onnx' needs onnxruntime, not installed here: pip install 'autoprune\[export\]'"
    with pytest.raises(ExportError, match=said):
        find_formats(list(FORMATS))


def test_formats_are_found_once_and_in_order() -> None:
    assert [each.name for each in find_formats(["torch", "safetensors", "torch"])] == ["torch", "safetensors"]


@pytest.mark.parametrize(
    ("formats", "said"),
    [
        (["onx"], "unknown export format 'onx' .did you mean 'onnx'.*Known: safetensors, onnx, torch"),
        ([], "at least one"),
    ],
)
def test_unknown_formats_are_refused(formats: list[str], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        find_formats(formats)


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
