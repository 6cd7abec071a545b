"""Hidden sizes: channels over which norms take their statistics leave too, and the network is as one built narrower."""

import copy
from typing import Any

import pytest
import torch
from pruning_networks import LayerNormMLP
from torch import nn

import autoprune
from autoprune.errors import PruningError
from autoprune.network.call import call_model
from autoprune.pruning.planner import make_plan

DIGIT = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_only_on_request_and_marked() -> None:
    model = LayerNormMLP()
    assert {group.name: group.exact for group in autoprune.plan(model, DIGIT).groups} == {"second": True}
    plan = autoprune.plan(model, DIGIT, hidden_sizes=True)
    assert {group.name: group.exact for group in plan.groups} == {"first": False, "second": True}
    pruned = plan.prune({"first": 0.5, "second": 0.25})
    assert pruned.norm.normalized_shape == (8,)
    assert plan.cost({"first": 8, "second": 9}).params == sum(p.numel() for p in pruned.parameters())
    # By hand: the layers with the kept rows, and statistics over these alone.
    kept = [i for i in range(16) if any(torch.equal(row, model.first.weight[i]) for row in pruned.first.weight)]
    hidden = torch.relu(nn.functional.layer_norm(model.first(DIGIT.flatten(1))[:, kept], (8,)))
    torch.testing.assert_close(
        pruned.second(hidden), pruned.second(torch.relu(pruned.norm(pruned.first(DIGIT.flatten(1)))))
    )


def test_a_hidden_size_that_breaks_the_network_is_left_out() -> None:
    class Fixed(LayerNormMLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.first.out_features != 16:
                raise ValueError("sixteen or none")
            return super().forward(x)

    plan = make_plan(Fixed(), DIGIT, hidden_sizes=True)
    assert plan.group_widths == {"second": 12}
    assert any("sixteen or none" in item.reason for item in plan.left_out if item.module == "first")


def test_values_are_still_compared_for_the_other_groups() -> None:
    class Sly(LayerNormMLP):
        """Gives another output as soon as ``second`` is cut, of the same shape."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + float(self.second.out_features < 12)

    plan = make_plan(Sly(), DIGIT, hidden_sizes=True)
    assert plan.group_widths == {"first": 16}
    assert any("differs from the masked" in item.reason for item in plan.left_out if item.module == "second")


def networks() -> dict[str, Any]:
    pytest.importorskip("transformers")
    from benchmarks.coverage_networks import transformers_models

    return dict(transformers_models())


HALF = {
    "BERT": {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 48},
    "DistilBERT": {"dim": 24, "n_heads": 3, "hidden_dim": 48},
    "GPT-2": {"n_embd": 24, "n_head": 3, "n_inner": 96},
    "Llama": {
        "hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 48, "head_dim": 8,
    },
    "Qwen2": {
        "hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 48, "head_dim": 8,
    },
    "ViT": {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 48},
}  # fmt: skip


@pytest.mark.parametrize("name", HALF)
def test_half_of_everything_is_the_network_that_transformers_builds_at_half_the_size(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = networks()[f"{name} (eager)"]()
    model.eval()
    pruned = autoprune.plan(model, inputs, hidden_sizes=True).prune(0.5)
    config = copy.deepcopy(model.config)
    config.update(HALF[name])
    smaller = type(model)(config).eval()
    smaller.load_state_dict(pruned.state_dict())
    torch.testing.assert_close(pruned(**inputs).logits, smaller(**inputs).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "Llama", "ViT", "Swin"])
@pytest.mark.parametrize("ratio", [0.1, 0.9])
def test_other_ratios_train(name: str, ratio: float) -> None:
    torch.manual_seed(0)
    model, inputs = networks()[f"{name} (sdpa)"]()
    plan = autoprune.plan(model.eval(), inputs, hidden_sizes=True)
    pruned = plan.prune(ratio)
    n_params = sum(parameter.numel() for parameter in pruned.parameters())
    assert plan.cost(plan.widths(ratio)).params == n_params
    left = n_params / sum(parameter.numel() for parameter in model.parameters())
    assert (0.75 < left < 0.9) if ratio == 0.1 else left < 0.06
    call_model(pruned.train(), inputs)[0].square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in pruned.parameters())
    if name == "GPT-2":
        assert pruned.lm_head.weight is pruned.transformer.wte.weight


def test_a_ratio_for_the_hidden_size_alone() -> None:
    torch.manual_seed(0)
    model, inputs = networks()["BERT (eager)"]()
    plan = autoprune.plan(model.eval(), inputs, hidden_sizes=True)
    pruned = plan.prune({"bert.embeddings.word_embeddings": 0.25})
    assert {m.normalized_shape for m in pruned.modules() if isinstance(m, nn.LayerNorm)} == {(36,)}
    assert pruned.bert.encoder.layer[0].attention.self.query.weight.shape == (48, 36)
    with pytest.raises(PruningError, match="unknown group"):
        autoprune.plan(model, inputs).prune({"bert.embeddings.word_embeddings": 0.25})
