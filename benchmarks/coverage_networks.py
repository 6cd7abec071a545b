"""The coverage benchmark's networks: hand-written ones, transformers' with small configs, torchvision's classifiers."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Built = tuple[nn.Module, Any]
"""A network and the inputs that it takes."""


class DenseConcat(nn.Module):
    """Each layer reads all outputs before it, as DenseNet's do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + 6 * i), nn.ReLU(), nn.Conv2d(8 + 6 * i, 6, 3, padding=1)) for i in range(4)
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x.mean((2, 3)))


class SharedModule(nn.Module):
    """One layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.head = nn.Linear(16, 24), nn.Linear(24, 24), nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        return self.head(F.relu(self.shared(F.relu(self.shared(x)))))


class GatedLinearUnit(nn.Module):
    """Halves of one layer's outputs multiplied, twice: by ``glu`` and by ``chunk``."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(16, 48), nn.Linear(24, 40), nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, v = self.b(F.glu(self.a(x))).chunk(2, -1)
        return self.head(u * F.silu(v))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.excite = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 6, 1), nn.Conv2d(6, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(x))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(x.mean((2, 3)))


class Shuffle(nn.Module):
    """ShuffleNet v1's unit: grouped convolutions with a channel shuffle between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.a, self.b = nn.Conv2d(24, 24, 1, groups=3), nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.c = nn.Conv2d(24, 24, 1, groups=3)
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = F.relu(self.a(x))
        n, c, h, w = y.shape
        y = y.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(F.relu(x + self.c(self.b(y))).mean((2, 3)))


class GroupedQueryAttention(nn.Module):
    """Four query heads for each pair of a key and a value head."""

    def __init__(self) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = 8, 2, 6
        self.q, self.k, self.v = nn.Linear(16, 48), nn.Linear(16, 12), nn.Linear(16, 12)
        self.o, self.head = nn.Linear(48, 16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.n_heads, self.head_dim).transpose(1, 2)
        k, v = (f(x).view(b, n, self.n_kv_heads, self.head_dim).transpose(1, 2) for f in (self.k, self.v))
        k, v = (t.repeat_interleave(self.n_heads // self.n_kv_heads, 1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        return self.head((x + self.o(y)).mean(1))


class TiedLanguageModel(nn.Module):
    """The last layer's weight is the embedding's; one table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(50, 24), nn.Parameter(torch.randn(1, 6, 24))
        self.up, self.down = nn.Linear(24, 64), nn.Linear(64, 24)
        self.head = nn.Linear(24, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.positions
        return self.head(x + self.down(F.gelu(self.up(x))))


class ConvLSTM(nn.Module):
    """Convolutions over time, then an LSTM and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 16, 3, padding=1)
        self.lstm, self.gru = nn.LSTM(16, 12, num_layers=2, batch_first=True), nn.GRU(12, 8, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.lstm(F.relu(self.conv(x)).transpose(1, 2))
        return self.head(self.gru(y)[0][:, -1])


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.middle, self.up = nn.Conv2d(16, 16, 3, padding=1), nn.ConvTranspose2d(16, 8, 2, 2)
        self.merge, self.head = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.norm = nn.GroupNorm(4, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = F.relu(self.down1(x))
        x = F.relu(self.norm(self.down2(F.max_pool2d(skip, 2))))
        x = F.relu(self.up(F.relu(self.middle(x))))
        return self.head(F.relu(self.merge(torch.cat([skip, x], 1))))


class FusedViT(nn.Module):
    """Blocks as timm writes them: one layer for queries, keys and values."""

    class Block(nn.Module):
        def __init__(self, dim: int, n_heads: int) -> None:
            super().__init__()
            self.num_heads, self.head_dim, self.scale = n_heads, dim // n_heads, (dim // n_heads) ** -0.5
            self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, n, _ = x.shape
            qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
            attention = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1)
            x = x + self.proj((attention @ v).transpose(1, 2).flatten(2))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 24, 4, 4), nn.Parameter(torch.randn(1, 1, 24))
        self.blocks = nn.Sequential(self.Block(24, 4), self.Block(24, 4))
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.blocks(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        return self.head(self.norm(x)[:, 0])


class ZeroPadded(nn.Module):
    """A residual network whose shortcuts pad channels with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.a, self.b = nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        y = self.norm(self.b(F.relu(self.a(x))))
        return self.head(F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))).mean((2, 3)))


class TorchTransformer(nn.Module):
    """``nn.TransformerEncoder`` on its own."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 4, 64, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x).mean(1))


def hand_written() -> Iterator[tuple[str, Callable[[], Built]]]:
    """(name, builder) of each small network."""
    image, tokens, sequence = torch.randn(2, 3, 16, 16), torch.randint(0, 50, (2, 6)), torch.randn(2, 7, 16)
    inputs = {
        SharedModule: torch.randn(2, 16),
        GatedLinearUnit: torch.randn(2, 16),
        TiedLanguageModel: tokens,
        GroupedQueryAttention: sequence,
        ConvLSTM: torch.randn(2, 4, 9),
        TorchTransformer: torch.randn(2, 7, 24),
    }
    for cls in (
        DenseConcat,
        SharedModule,
        GatedLinearUnit,
        SqueezeExcite,
        Shuffle,
        GroupedQueryAttention,
        TiedLanguageModel,
        ConvLSTM,
        UNet,
        FusedViT,
        ZeroPadded,
        TorchTransformer,
    ):
        yield cls.__name__, (lambda cls=cls: (cls(), inputs.get(cls, image)))


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

            if attention == "sdpa" and name in ("ConvNeXt", "MobileViT"):
                continue
            yield f"{name} ({attention})", build


def torchvision_models() -> Iterator[tuple[str, Callable[[], Built]]]:
    """(name, builder) of torchvision's classifiers."""
    import torchvision

    for name in torchvision.models.list_models(module=torchvision.models):

        def build(name: str = name) -> Built:
            attends = name.startswith(("vit", "swin", "maxvit"))
            size = 224 if attends else 299 if name == "inception_v3" else 96
            options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            model = torchvision.models.get_model(name, weights=None, **options)
            return model, torch.randn(2, 3, size, size)

        yield name, build
