"""The coverage benchmark's networks: hand-written ones and torchvision's classifiers."""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.coverage_transformers import Built, transformers_models

__all__ = ["hand_written", "torchvision_models", "transformers_models"]


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


def torchvision_models() -> Iterator[tuple[str, Callable[[], Built]]]:
    """(name, builder) of torchvision's classifiers, the smallest first."""
    import torchvision

    def size_of(name: str) -> int:
        return next(iter(torchvision.models.get_model_weights(name))).meta["num_params"]

    for name in sorted(torchvision.models.list_models(module=torchvision.models), key=size_of):

        def build(name: str = name) -> Built:
            attends = name.startswith(("vit", "swin", "maxvit"))
            size = 224 if attends else 299 if name == "inception_v3" else 96
            options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            model = torchvision.models.get_model(name, weights=None, **options)
            return model, torch.randn(2, 3, size, size)

        yield name, build
