"""Transformer layers as blocks: keyword arguments, tuples, norms behind the sum, and what networks read of layers."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import autoprune
from autoprune.config.task import CallableRef
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.saved_model import load, load_model, save_model
from autoprune.network.call import call_model
from autoprune.pruning.blocks.find import find_blocks
from autoprune.pruning.blocks.removed import RemovedBlock, remove_blocks
from autoprune.pruning.plan import Block, PruningPlan
from autoprune.pruning.planner import make_plan

X = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(0))


class Layer(nn.Module):
    """Adds to its stream and hands tensors on, as transformers' layers have done over the years."""

    def __init__(self, *, makes: bool = False) -> None:
        super().__init__()
        self.kind = "full"
        self.inner = nn.Linear(12, 12)
        self.bias = nn.Parameter(torch.ones(12)) if makes else None

    def forward(self, *, mask: Any, hidden: torch.Tensor, bias: torch.Tensor | None = None) -> tuple[Any, ...]:
        bias = bias if self.bias is None else self.bias
        added = self.inner(hidden) if bias is None else self.inner(hidden + bias)
        return None, hidden + added, added, bias


class Stack(nn.Module):
    """Reads ``kind`` of its layers and, with ``shared``, the bias that the first one makes."""

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.shared = shared
        self.layers = nn.ModuleList(Layer(makes=shared and number == 0) for number in range(3))
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None
        for layer in self.layers:
            _, x, _, made = layer(mask={"full": None}[layer.kind], hidden=x, bias=bias)
            bias = made if self.shared else None
        return torch.as_tensor(self.head(x))


def encoder(norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True, norm_first=norm_first)
    return nn.Sequential(nn.TransformerEncoder(layer, 3, nn.LayerNorm(12), enable_nested_tensor=False))


def test_the_stream_among_keywords_and_in_a_tuple() -> None:
    blocks, left_out = find_blocks(Stack(), X)
    assert [(block.name, block.gives) for block in blocks] == [
        (f"layers.{number}", (None, "hidden", None, None)) for number in range(3)
    ]
    assert left_out == []


def test_a_tensor_that_others_read_is_handed_on_or_keeps_the_block() -> None:
    blocks, left_out = find_blocks(Stack(shared=True), X)
    assert [(block.name, block.gives) for block in blocks] == [
        (f"layers.{number}", (None, "hidden", None, "bias")) for number in (1, 2)
    ]
    assert [item.module for item in left_out] == ["layers.0"]
    assert "other layers read a second tensor" in left_out[0].reason
    model = Stack(shared=True)
    expected = copy.deepcopy(model)
    expected.layers = nn.ModuleList([expected.layers[0], expected.layers[2]])
    remove_blocks(model, [blocks[0]])
    torch.testing.assert_close(model(X), expected(X), rtol=0, atol=0)


@pytest.mark.parametrize("norm_first", [False, True])
def test_torchs_encoder_without_its_layers(norm_first: bool) -> None:
    torch.manual_seed(0)
    model = encoder(norm_first)
    plan = autoprune.plan(model, X)
    assert [block.name for block in plan.blocks] == [f"0.layers.{number}" for number in range(3)]
    pruned = plan.prune(blocks=["0.layers.0", "0.layers.2"])
    expected = nn.Sequential(copy.deepcopy(model[0].layers[1]), copy.deepcopy(model[0].norm)).eval()
    torch.testing.assert_close(pruned.eval()(X), expected(X), rtol=1e-6, atol=1e-6)
    assert plan.prune(0.5, blocks=[block.name for block in plan.blocks])(X).shape == X.shape


def test_layers_that_only_end_in_a_norm_are_no_blocks() -> None:
    model = nn.Sequential(
        *(nn.Sequential(nn.Linear(12, 12), nn.LayerNorm(12)) for _ in range(2)),
        nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 12)),
    )
    assert find_blocks(model, 1e-6 * X) == ([], [])


def test_what_a_removed_layer_still_tells() -> None:
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True).eval()
    removed = RemovedBlock(layer)
    assert removed.self_attn.batch_first
    assert removed.linear1.out_features == 20
    assert not removed.training
    assert list(removed.named_modules()) == [("", removed)]
    assert removed.state_dict() == {}
    assert removed(X, "anything", src_mask=None) is X


def stack() -> nn.Module:
    """Imported by name when it is loaded again."""
    return Stack(shared=True)


def test_saved_without_pickle_and_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = stack()
    plan = make_plan(dense, X)
    assert PruningPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    pruned = autoprune.plan(dense, X).prune(blocks=["layers.1"])
    reference = CallableRef(callable="test_blocks_find:stack")
    architecture = architecture_diff(stack(), pruned, reference)
    assert architecture.to_dict()["gives"] == {"layers.1": (None, "hidden", None, "bias")}
    save_model(tmp_path, pruned, architecture)
    for loaded in (load_model(tmp_path, stack), load(tmp_path, base_dir=Path(__file__).parent)):
        torch.testing.assert_close(loaded(X), pruned(X), rtol=0, atol=0)
        loaded(X).sum().backward()
        assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_a_file_from_before_blocks_could_take_keywords(tmp_path: Path) -> None:
    model = encoder(norm_first=True)
    pruned = copy.deepcopy(model)
    remove_blocks(pruned, [Block("0.layers.1")])
    save_model(tmp_path, pruned, architecture_diff(model, pruned, CallableRef(callable="somewhere:net")))
    record = json.loads((tmp_path / "architecture.json").read_text())
    assert record.pop("gives") == {}
    (tmp_path / "architecture.json").write_text(json.dumps(record))
    loaded = load_model(tmp_path, lambda: encoder(norm_first=True))
    torch.testing.assert_close(loaded.eval()(X), pruned.eval()(X), rtol=0, atol=0)


TRANSFORMERS = {
    "BERT": 2, "DistilBERT": 2, "RoBERTa": 2, "ALBERT": 0, "GPT-2": 2, "Llama": 2, "Qwen2": 2, "T5 encoder": 1,
    "ViT": 2, "DeiT": 2, "Swin": 4, "ConvNeXt": 5, "BEiT": 2, "Whisper encoder": 2, "Phi-3": 2, "Falcon": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from benchmarks.coverage_networks import transformers_models

    torch.manual_seed(0)
    build = dict(transformers_models())[f"{name} (eager)"]
    model, inputs = build()
    model.eval()
    plan = autoprune.plan(model, inputs)
    names = [block.name for block in plan.blocks]
    assert len(names) == TRANSFORMERS[name]
    if name in ("ALBERT", "T5 encoder"):
        assert sum(item.reason.startswith("block: ") for item in plan.left_out) == 1
    removed = names[::2]
    pruned = plan.prune(0.5, blocks=removed)
    for block in removed:
        assert isinstance(pruned.get_submodule(block), RemovedBlock)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call_model(pruned, {key: value[:1] for key, value in inputs.items()})
    cost = plan.cost(plan.widths(0.5), removed)
    assert cost.params == sum(p.numel() for p in pruned.parameters())
    assert cost.macs == counter.get_total_flops() // 2
    loaded_from = tmp_path / "model"
    save_model(loaded_from, pruned, architecture_diff(build()[0], pruned, CallableRef(callable="somewhere:net")))
    loaded = load_model(loaded_from, lambda: build()[0]).eval()
    both = [call_model(network, inputs)[0] for network in (loaded, pruned.eval())]
    torch.testing.assert_close(*both, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["BERT", "Llama", "ViT"])
def test_transformers_layers_are_like_a_shorter_networks(name: str) -> None:
    """The oracle is the network that transformers builds with one layer less."""
    pytest.importorskip("transformers")
    from benchmarks.coverage_networks import transformers_models

    torch.manual_seed(0)
    model, inputs = dict(transformers_models())[f"{name} (eager)"]()
    model.eval()
    (first, last) = [block.name for block in autoprune.plan(model, inputs).blocks]
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = 1
    shorter = type(model)(config).eval()
    weights = model.state_dict()
    shorter.load_state_dict({n: weights[n.replace(f"{first}.", f"{last}.")] for n in shorter.state_dict()})
    pruned = autoprune.plan(model, inputs).prune(blocks=[first])
    torch.testing.assert_close(pruned(**inputs).logits, shorter(**inputs).logits, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.parametrize("name", ["BERT (sdpa)", "Swin (eager)"])
def test_exported_programs_of_networks_without_a_layer(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    import onnxruntime

    from benchmarks.coverage_networks import transformers_models

    torch.manual_seed(0)
    model, inputs = dict(transformers_models())[name]()
    if name.startswith("Swin"):  # one layer of the last stage is enough, and half the time
        model.config.depths = [2, 1]
        model = type(model)(model.config)
    plan = autoprune.plan(model.eval(), inputs)
    pruned = plan.prune(0.5, blocks=[plan.blocks[0].name])
    expected = pruned(**inputs).logits.detach()
    program = torch.export.export(pruned, (), inputs)
    torch.testing.assert_close(program.module()(**inputs).logits, expected)
    torch.onnx.export(program, f=tmp_path / "model.onnx", dynamo=True, external_data=False, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {key: value.numpy() for key, value in inputs.items()})[:1]
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)


class Cache:
    """Keys of the layers that have run."""

    def __init__(self) -> None:
        self.keys: dict[int, torch.Tensor] = {}

    def update(self, layer: int, keys: torch.Tensor) -> torch.Tensor:
        self.keys[layer] = torch.cat([self.keys[layer], keys], 1) if layer in self.keys else keys
        return self.keys[layer]


class Cached(nn.Module):
    """Every layer adds to a cache, which makes its keys longer than the mask if it is called twice."""

    class Layer(nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number, self.inner = number, nn.Linear(12, 12)

        def forward(self, x: torch.Tensor, mask: torch.Tensor, cache: Cache) -> torch.Tensor:
            keys = cache.update(self.number, self.inner(x))
            return x + (x @ keys.transpose(1, 2) * mask) @ keys

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(self.Layer(number) for number in range(3)), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cache, mask = Cache(), torch.ones(5, 5).tril()
        for layer in self.layers:
            x = layer(x, mask, cache)
        return torch.as_tensor(self.head(x))


def test_layers_that_add_to_a_cache() -> None:
    blocks, left_out = find_blocks(Cached(), X)
    assert [block.name for block in blocks] == ["layers.0", "layers.1", "layers.2"]
    assert left_out == []


@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_a_language_model_with_its_cache_and_padded_inputs(name: str) -> None:
    pytest.importorskip("transformers")
    from benchmarks.coverage_networks import transformers_models

    model, inputs = dict(transformers_models())[f"{name} (sdpa)"]()
    model.config.use_cache = True
    mask = inputs["attention_mask"].clone()
    mask[0, 9:] = 0
    plan = autoprune.plan(model.eval(), {**inputs, "attention_mask": mask})
    assert len(plan.blocks) == 2
    pruned = plan.prune(0.5, blocks=[plan.blocks[0].name])
    tokens = pruned.generate(
        inputs["input_ids"], attention_mask=mask, max_new_tokens=3, do_sample=False, pad_token_id=0
    )
    assert tokens.shape == (2, 15)
