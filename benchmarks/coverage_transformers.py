"""The coverage benchmark's networks from transformers, with small configs and random weights."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

Built = tuple[nn.Module, Any]
"""A network and the inputs that it takes."""


def transformers_models() -> Iterator[tuple[str, Callable[[], Built]]]:
    """(name, builder) of transformers' networks with small configs."""
    import transformers as tf

    tokens = {"input_ids": torch.randint(5, 90, (2, 12)), "attention_mask": torch.ones(2, 12, dtype=torch.long)}
    image = {"pixel_values": torch.randn(2, 3, 32, 32)}
    small = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 96}
    text = {**small, "vocab_size": 99, "max_position_embeddings": 40}
    vision = {**small, "image_size": 32, "patch_size": 8}
    llama = {**text, "num_key_value_heads": 2}
    table: dict[str, tuple[Any, Any, dict[str, Any], Any]] = {
        "BERT": (tf.BertForSequenceClassification, tf.BertConfig, text, tokens),
        "DistilBERT": (
            tf.DistilBertForSequenceClassification,
            tf.DistilBertConfig,
            {"vocab_size": 99, "max_position_embeddings": 40, "dim": 48, "n_layers": 2, "n_heads": 6, "hidden_dim": 96},
            tokens,
        ),
        "RoBERTa": (tf.RobertaForSequenceClassification, tf.RobertaConfig, text, tokens),
        "ALBERT": (tf.AlbertForSequenceClassification, tf.AlbertConfig, {**text, "embedding_size": 20}, tokens),
        "ELECTRA": (tf.ElectraForSequenceClassification, tf.ElectraConfig, {**text, "embedding_size": 20}, tokens),
        "GPT-2": (
            tf.GPT2LMHeadModel,
            tf.GPT2Config,
            {"vocab_size": 99, "n_positions": 40, "n_embd": 48, "n_layer": 2, "n_head": 6, "use_cache": False},
            tokens,
        ),
        "Llama": (tf.LlamaForCausalLM, tf.LlamaConfig, {**llama, "use_cache": False}, tokens),
        "Qwen2": (tf.Qwen2ForCausalLM, tf.Qwen2Config, {**llama, "use_cache": False}, tokens),
        "T5 encoder": (
            tf.T5EncoderModel,
            tf.T5Config,
            {"vocab_size": 99, "d_model": 48, "d_kv": 8, "d_ff": 96, "num_layers": 2, "num_heads": 6},
            tokens,
        ),
        "ViT": (tf.ViTForImageClassification, tf.ViTConfig, vision, image),
        "DeiT": (tf.DeiTForImageClassification, tf.DeiTConfig, vision, image),
        "Swin": (
            tf.SwinForImageClassification,
            tf.SwinConfig,
            {
                "image_size": 32,
                "patch_size": 2,
                "embed_dim": 24,
                "depths": [2, 2],
                "num_heads": [3, 6],
                "window_size": 4,
            },
            image,
        ),
        "ConvNeXt": (
            tf.ConvNextForImageClassification,
            tf.ConvNextConfig,
            {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1], "image_size": 32},
            image,
        ),
        "BEiT": (tf.BeitForImageClassification, tf.BeitConfig, {**vision, "use_relative_position_bias": True}, image),
        "MobileViT": (
            tf.MobileViTForImageClassification,
            tf.MobileViTConfig,
            {
                "image_size": 64,
                "hidden_sizes": [24, 32, 40],
                "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64],
                "num_attention_heads": 4,
            },
            {"pixel_values": torch.randn(2, 3, 64, 64)},
        ),
        "Whisper encoder": (
            None,
            tf.WhisperConfig,
            {
                "d_model": 48,
                "encoder_layers": 2,
                "encoder_attention_heads": 6,
                "encoder_ffn_dim": 96,
                "num_mel_bins": 16,
                "max_source_positions": 20,
                "decoder_layers": 1,
                "decoder_attention_heads": 6,
                "vocab_size": 99,
                "pad_token_id": 0,
            },
            {"input_features": torch.randn(2, 16, 40)},
        ),
    }
    plain = {"use_cache": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    table |= {
        "Mistral": (tf.MistralForCausalLM, tf.MistralConfig, {**llama, **plain}, tokens),
        "Phi-3": (tf.Phi3ForCausalLM, tf.Phi3Config, {**llama, **plain}, tokens),
        "Gemma2": (
            tf.Gemma2ForCausalLM,
            tf.Gemma2Config,
            {**llama, **plain, "head_dim": 8, "query_pre_attn_scalar": 8},
            tokens,
        ),
        "GPT-NeoX": (tf.GPTNeoXForCausalLM, tf.GPTNeoXConfig, {**text, **plain}, tokens),
        "Falcon": (
            tf.FalconForCausalLM,
            tf.FalconConfig,
            {**text, **plain, "num_kv_heads": 2, "new_decoder_architecture": True},
            tokens,
        ),
        "OPT": (
            tf.OPTForCausalLM,
            tf.OPTConfig,
            {**text, **plain, "ffn_dim": 96, "word_embed_proj_dim": 48},
            tokens,
        ),
        "MPNet": (tf.MPNetForSequenceClassification, tf.MPNetConfig, text, tokens),
        "DeBERTa-v2": (
            tf.DebertaV2ForSequenceClassification,
            tf.DebertaV2Config,
            {**text, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
            tokens,
        ),
    }
    for name, (cls, config, settings, inputs) in table.items():
        for attention in ("eager", "sdpa"):

            def build(
                cls: Any = cls,
                config: Any = config,
                settings: Any = settings,
                inputs: Any = inputs,
                attention: str = attention,
            ) -> Built:
                made = config(**settings)
                made._attn_implementation = attention
                if cls is None:
                    from transformers.models.whisper.modeling_whisper import WhisperEncoder

                    return WhisperEncoder(made), inputs
                return cls(made), inputs

            if attention == "sdpa" and name in ("ConvNeXt", "MobileViT", "Gemma2", "MPNet", "DeBERTa-v2"):
                continue
            yield f"{name} ({attention})", build
