"""Small networks to write and to export, imported by name when one is loaded again."""

from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn


def cnn(width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(2 * width, 10),
    )


def mlp(width: int = 20) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


class TextNet(nn.Module):
    """Takes a dict, returns a dict."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, width)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        embedded = self.embedding(ids) * mask[..., None]
        pooled = embedded.sum(1) / mask.sum(1, keepdim=True)
        return {"logits": self.head(pooled), "hidden": (pooled, None)}


def text_net(width: int = 6) -> nn.Module:
    return TextNet(width)


class Cache:
    """Tensors that torch knows nothing of, as language models keep them for the next token."""

    def __init__(self, keys: torch.Tensor) -> None:
        self.keys = keys


class Caching(nn.Module):
    """Returns its scores and a cache."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Linear(4, width)
        self.head = nn.Linear(width, 3)

    def forward(self, inputs: torch.Tensor) -> dict[str, Any]:
        keys = self.body(inputs).relu()
        return {"cache": Cache(keys), "logits": self.head(keys)}


def caching(width: int = 6) -> nn.Module:
    return Caching(width)


@dataclass(frozen=True)
class Scores:
    logits: torch.Tensor
    cache: Cache
    loss: torch.Tensor | None = None


class Scoring(Caching):
    """Returns them in an object."""

    def forward(self, inputs: torch.Tensor) -> Any:
        return Scores(**super().forward(inputs))


def scoring(width: int = 6) -> nn.Module:
    return Scoring(width)


class TwoInputs(nn.Module):
    """Takes a tuple, returns a tuple, one of its outputs being an input handed through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left = nn.Linear(4, width)
        self.right = nn.Linear(5, width)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.left(left).relu() * self.right(right), left


def two_inputs(width: int = 3) -> nn.Module:
    return TwoInputs(width)


class FixedBatch(nn.Module):
    """Takes batches of six and no others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(64, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.view(6, 64))


def fixed_batch(width: int = 4) -> nn.Module:
    return FixedBatch(width)


def one_at_a_time(width: int = 4) -> nn.Module:
    return PerExample(width)


class PerExample(nn.Module):
    """Runs on any batch, but by a Python loop over it, which a trace can only unroll."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(64, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.head(example.flatten()) for example in x])


class Untraceable(nn.Module):
    """Decides by its input's values, which no trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1)) * (2 if x.sum() > 1 else 3)


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
    model: nn.Module = globals()[name](width)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.2, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model
