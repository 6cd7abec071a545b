"""Networks come back from disk bit for bit, and what can't be read is said."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from autoprune.config.task import CallableRef
from autoprune.errors import AutopruneError, SavedModelError, TaskError
from autoprune.formats.architecture import Architecture, apply_architecture, architecture_diff
from autoprune.formats.saved_model import load, load_model, save_model
from autoprune.pruning.blocks.removed import remove_blocks
from autoprune.pruning.plan import Block
from autoprune.zoo import cnn6, resnet20, small_cnn

CNN6 = CallableRef(callable="autoprune.zoo:cnn6")
WIDTHS = (5, 16, 7, 32, 11, 3)


def assert_same(left: nn.Module, right: nn.Module) -> None:
    left_state, right_state = left.state_dict(), right.state_dict()
    assert left_state.keys() == right_state.keys()
    for name, tensor in left_state.items():
        other = right_state[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
        assert tensor.numpy().tobytes() == other.numpy().tobytes(), name


def save_narrow(folder: Path) -> nn.Module:
    narrow = cnn6(WIDTHS)
    narrow(torch.randn(4, 1, 28, 28))
    save_model(folder, narrow, architecture_diff(cnn6(), narrow, CNN6))
    return narrow


def test_round_trip_of_narrow_networks(tmp_path: Path) -> None:
    narrow = save_narrow(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert_same(narrow, loaded)
    assert not loaded.training
    assert [m.in_channels for m in loaded.modules() if isinstance(m, nn.Conv2d)] == [1, *WIDTHS[:-1]]
    assert [m.num_features for m in loaded.modules() if isinstance(m, nn.BatchNorm2d)] == list(WIDTHS)
    assert loaded.head.in_features == WIDTHS[-1]
    inputs = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(narrow.eval()(inputs), loaded(inputs), rtol=0, atol=0)
    loaded.train()(inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_size_is_the_files(tmp_path: Path) -> None:
    dense = cnn6()
    size = save_model(tmp_path, dense, architecture_diff(dense, dense, CNN6))
    assert size == (tmp_path / "model.safetensors").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["architecture.json", "model.safetensors"]
    assert_same(dense, load(tmp_path))


def test_dense_file_is_plain_safetensors(tmp_path: Path) -> None:
    dense = resnet20()
    save_model(tmp_path, dense, architecture_diff(dense, dense, CallableRef(callable="autoprune.zoo:resnet20")))
    dense.bn1.running_mean.fill_(1)
    dense.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    assert torch.equal(dense.bn1.running_mean, torch.zeros(16))


def test_removed_blocks(tmp_path: Path) -> None:
    model = resnet20()
    remove_blocks(model, [Block("layer1.1"), Block("layer3.2")])
    reference = CallableRef(callable="autoprune.zoo:resnet20")
    architecture = architecture_diff(resnet20(), model, reference)
    assert list(architecture.removed_blocks) == ["layer1.1", "layer3.2"]
    save_model(tmp_path, model, architecture)
    loaded = load(tmp_path)
    assert_same(model, loaded)
    inputs = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model.eval()(inputs), loaded(inputs), rtol=0, atol=0)


def test_architecture_is_plain(tmp_path: Path) -> None:
    architecture = architecture_diff(
        cnn6(), cnn6(WIDTHS), CallableRef(callable="autoprune.zoo:cnn6", args={"num_classes": 10})
    )
    assert architecture.model == {"callable": "autoprune.zoo:cnn6", "args": {"num_classes": 10}}
    assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture
    assert architecture.modules["stage1.conv1"] == {"out_channels": 5}
    assert architecture.shapes["stage1.bn1.running_var"] == [5]
    assert "stage1.bn1.num_batches_tracked" not in architecture.shapes


class Special(nn.Module):
    """Tied weights, whole-number and non-persistent buffers, sizes in a tuple, a frozen weight in half precision."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.norm = nn.LayerNorm((width,))
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.randn(width).bfloat16(), requires_grad=False)
        self.register_buffer("order", torch.arange(width))
        self.register_buffer("hidden", torch.randn(width), persistent=False)
        self.width = width


def test_ties_buffers_and_dtypes(tmp_path: Path) -> None:
    narrow = Special(3)
    size = save_model(tmp_path, narrow, architecture_diff(Special(), narrow, CallableRef(callable="somewhere:Special")))
    loaded = load_model(tmp_path, Special)
    assert loaded.head.weight is loaded.embedding.weight
    assert torch.equal(loaded.head.weight, narrow.head.weight)
    assert torch.equal(loaded.frozen, narrow.frozen)
    assert not loaded.frozen.requires_grad
    assert loaded.order.tolist() == [0, 1, 2]
    assert torch.equal(loaded.hidden, narrow.hidden)
    assert (loaded.norm.normalized_shape, loaded.width) == ((3,), 3)
    assert size < 2 * 4 * 33 + 1500


def test_another_dtype_than_the_dense_network_has(tmp_path: Path) -> None:
    model = small_cnn().double()
    save_model(tmp_path, model, architecture_diff(small_cnn(), model, CallableRef(callable="autoprune.zoo:small_cnn")))
    assert_same(model, load(tmp_path))


@pytest.mark.parametrize("ratio", [0.0, 0.02, 0.5, 0.9, 1.0])
def test_zeros_are_stored_compactly(ratio: float, tmp_path: Path) -> None:
    dense = nn.Linear(300, 100)
    pruned = nn.Linear(300, 100)
    with torch.no_grad():
        pruned.weight.flatten()[torch.randperm(30000)[: round(30000 * ratio)]] = 0
        pruned.weight[0, :2] = torch.tensor([-0.0, torch.nan])
    architecture = architecture_diff(
        dense, pruned, CallableRef(callable="torch.nn:Linear", args={"in_features": 300, "out_features": 100})
    )
    size = save_model(tmp_path, pruned, architecture)
    assert_same(pruned, load(tmp_path))
    weight_bytes = 120_000 if ratio < 1 / 32 else 120_000 * (1 - ratio) + 30_000 / 8
    assert size == pytest.approx(weight_bytes + 400, abs=700)


def test_without_packing_any_program_reads_the_zeros(tmp_path: Path) -> None:
    model = cnn6(WIDTHS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[torch.rand_like(parameter) < 0.9] = 0
    save_model(tmp_path, model, architecture_diff(cnn6(), model, CNN6), pack_zeros=False)
    state, stored = model.state_dict(), load_file(tmp_path / "model.safetensors")
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in state.items())
    assert_same(model, load(tmp_path))


def test_rebuild_keeps_ties_and_grad_flags() -> None:
    rebuilt = apply_architecture(
        Special(), architecture_diff(Special(), Special(3), CallableRef(callable="somewhere:Special"))
    )
    assert rebuilt.head.weight is rebuilt.embedding.weight
    assert rebuilt.head.weight.shape == (11, 3)
    assert isinstance(rebuilt.frozen, nn.Parameter)
    assert rebuilt.frozen.dtype == torch.bfloat16
    assert not rebuilt.frozen.requires_grad


def test_the_users_own_module_is_found_from_base_dir(tmp_path: Path) -> None:
    (tmp_path / "saved_own_net.py").write_text("from torch import nn\n\ndef net(n):\n    return nn.Linear(n, 2)\n")
    model = nn.Linear(3, 2)
    save_model(
        tmp_path / "model",
        model,
        architecture_diff(model, model, CallableRef(callable="saved_own_net:net", args={"n": 3})),
    )
    assert_same(model, load(tmp_path / "model", base_dir=tmp_path))


def test_a_module_that_is_not_found_names_the_way_out(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    save_model(tmp_path, model, architecture_diff(model, model, CallableRef(callable="saved_absent_net:net")))
    with pytest.raises(
        TaskError, match=r"no module 'saved_absent_net'.*that saved_absent_net is in: autoprune\.load\(.*, base_dir="
    ):
        load(tmp_path)
    (tmp_path / "saved_absent_net.py").write_text("import absent_package\n")
    with pytest.raises(TaskError, match=r"importing saved_absent_net raised .*absent_package") as caught:
        load(tmp_path, base_dir=tmp_path)
    assert "base_dir" not in str(caught.value)


def edit_json(**changes: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / "architecture.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "architecture.json").unlink(), r"no saved network in .*architecture.json is missing"),
        (lambda folder: (folder / "architecture.json").write_text("{"), "describes no network"),
        (lambda folder: (folder / "architecture.json").write_text("[]"), "describes no network"),
        (lambda folder: (folder / "architecture.json").write_text("{}"), "describes no network"),
        (edit_json(format_version=2), "format_version must be 1, got 2"),
        (edit_json(shapes=3), "describes no network saved by autoprune: shapes"),
        (edit_json(model={"args": {}}), "describes no network saved by autoprune: callable"),
        (edit_json(modules={"stage9": {"out_channels": 3}}), "builds now is not the one that was saved.*'stage9'"),
        (edit_json(removed_blocks=["stage9"]), "no module 'stage9'"),
        (edit_json(shapes={"x": [3]}), "no parameter or buffer 'x'"),
        (edit_json(shapes={}), "tensors don't fit, the first one 'head.weight'"),
        (edit_json(model={"callable": "autoprune.zoo:cnn7", "args": {}}), r"has no 'cnn7' \(did you mean 'cnn6'"),
        (edit_json(weights_sha256=""), "SHA-256"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model.safetensors can't be used: FileNotFoundError"),
        (cut_weights, "model.safetensors can't be used: its SHA-256"),
    ],
)
def test_damage_is_said(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    save_narrow(tmp_path)
    damage(tmp_path)
    with pytest.raises(AutopruneError, match=message):
        load(tmp_path)


def test_a_safetensors_file_of_another_program(tmp_path: Path) -> None:
    import hashlib

    from safetensors.torch import save_file

    save_narrow(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file(cnn6(WIDTHS).state_dict(), path)
    edit_json(weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest())(tmp_path)
    with pytest.raises(SavedModelError, match="can't be used: KeyError: 'autoprune'"):
        load(tmp_path)


def test_saving_again_replaces(tmp_path: Path) -> None:
    save_narrow(tmp_path)
    again = save_narrow(tmp_path)
    assert_same(again, load(tmp_path))
