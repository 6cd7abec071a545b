"""A pruned transformers model is not saved in a form that comes back with other weights."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import autoprune
from autoprune.config.task import CallableRef
from autoprune.errors import ExportError
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.saved_model import load, save_model

TOKENS = {"input_ids": torch.arange(16).reshape(2, 8)}


def bert() -> Any:
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=32,
        max_position_embeddings=16,
    )
    return BertForSequenceClassification(config).eval()


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=32, n_positions=16)).eval()


def llama() -> Any:
    config = LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=32
    )
    return LlamaForCausalLM(config).eval()


def same_weights(left: nn.Module, right: nn.Module) -> bool:
    pairs = left.state_dict(), right.state_dict()
    return pairs[0].keys() == pairs[1].keys() and all(torch.equal(pairs[1][name], t) for name, t in pairs[0].items())


@pytest.mark.parametrize(("make", "layer"), [(bert, "bert.encoder.layer.1"), (llama, "model.layers.0")])
def test_a_removed_layer_would_be_initialised_anew(make: Any, layer: str, tmp_path: Path) -> None:
    pruned = autoprune.plan(make(), TOKENS).prune(blocks=[layer])
    for model in (pruned, copy.deepcopy(pruned)):
        with pytest.raises(ExportError, match=f"'{layer}' was removed and would be initialised anew"):
            model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [bert, gpt2, llama])
def test_narrow_layers_do_not_fit_the_config(make: Any, tmp_path: Path) -> None:
    pruned = autoprune.plan(make(), TOKENS).prune(0.5)
    with pytest.raises(ExportError, match=r"its config builds '[\w.]+' in another shape than \[") as told:
        pruned.save_pretrained(tmp_path / "out")
    assert "torch.save" in str(told.value)


@pytest.mark.parametrize(("make", "size"), [(bert, "intermediate_size"), (llama, "intermediate_size")])
def test_a_config_that_expresses_the_shape_saves_it_and_it_comes_back(make: Any, size: str, tmp_path: Path) -> None:
    model = make()
    plan = autoprune.plan(model, TOKENS)
    inner = [group.name for group in plan.groups if group.width == 24]
    assert len(inner) == 2
    pruned = plan.prune(dict.fromkeys(inner, 0.5)).eval()
    with pytest.raises(ExportError):
        pruned.save_pretrained(tmp_path)
    setattr(pruned.config, size, 12)
    pruned.save_pretrained(tmp_path)
    found = type(model).from_pretrained(tmp_path).eval()
    assert same_weights(pruned, found)
    assert torch.equal(found(**TOKENS).logits, pruned(**TOKENS).logits)


def test_a_model_that_lost_nothing_saves_as_ever(tmp_path: Path) -> None:
    model = bert()
    autoprune.plan(model, TOKENS).prune(0.0).save_pretrained(tmp_path)
    assert same_weights(BertForSequenceClassification.from_pretrained(tmp_path), model)


class Wrapped(nn.Module):
    """A user's own network around one of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = bert().bert, nn.Linear(16, 3)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(input_ids).pooler_output)


def test_a_part_that_was_pruned_is_guarded_too(tmp_path: Path) -> None:
    plan = autoprune.plan(Wrapped().eval(), TOKENS)
    block = next(block.name for block in plan.blocks if block.name.startswith("backbone"))
    with pytest.raises(ExportError, match="was removed"):
        plan.prune(blocks=[block]).backbone.save_pretrained(tmp_path)


def test_a_loaded_network_is_guarded(tmp_path: Path) -> None:
    model = bert()
    pruned = autoprune.plan(model, TOKENS).prune(blocks=["bert.encoder.layer.0"])
    save_model(tmp_path, pruned, architecture_diff(model, pruned, CallableRef(callable=f"{Path(__file__).stem}:bert")))
    with pytest.raises(ExportError, match=r"'bert\.encoder\.layer\.0' was removed"):
        load(tmp_path, base_dir=Path(__file__).parent).save_pretrained(tmp_path / "out")


def test_a_guarded_network_is_saved_whole(tmp_path: Path) -> None:
    pruned = autoprune.plan(bert(), TOKENS).prune(blocks=["bert.encoder.layer.0"]).eval()
    torch.save(pruned, tmp_path / "pruned.pt")
    found = torch.load(tmp_path / "pruned.pt", weights_only=False)
    assert torch.equal(found(**TOKENS).logits, pruned(**TOKENS).logits)


class Hub(nn.Module):
    """Has a ``save_pretrained`` of another kind, whose class is not built from a config."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, hidden), nn.Linear(hidden, 2)
        self.config = {"hidden": hidden}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))

    def save_pretrained(self, folder: Path) -> None:
        raise AssertionError(folder)


def test_what_cannot_be_built_anew_is_refused(tmp_path: Path) -> None:
    pruned = autoprune.plan(Hub(), torch.randn(2, 4)).prune(0.5)
    with pytest.raises(ExportError, match="can't be built from its config alone"):
        pruned.save_pretrained(tmp_path)
