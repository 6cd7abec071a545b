"""The windowed attention of torchvision's Swin (v1, v2) and MaxViT with any number of heads."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2


def adapter(cls: type) -> Callable[[Any], None] | None:
    """Return what makes a layer of this class agree with its tensors after pruning; ``None`` for another class."""
    if issubclass(cls, ShiftedWindowAttention):
        return _follow_swin
    if issubclass(cls, RelativePositionalMultiHeadAttention):
        return _follow_maxvit
    return None


def _follow_swin(module: Any) -> None:
    is_v2 = isinstance(module, ShiftedWindowAttentionV2)
    n_heads = module.logit_scale.shape[0] if is_v2 else module.relative_position_bias_table.shape[1]
    if n_heads != module.num_heads:
        module.__class__ = HeadwiseSwinV2 if is_v2 else HeadwiseSwin
        module.num_heads = n_heads


def _follow_maxvit(module: Any) -> None:
    n_heads = module.relative_position_bias_table.shape[1]
    if n_heads != module.n_heads:
        module.__class__ = HeadwiseMaxViT
        module.n_heads = n_heads


class _Headwise(nn.Module):
    """Swin's attention; ``num_heads`` heads share the outputs of ``qkv``."""

    window_size: list[int]
    shift_size: list[int]
    num_heads: int
    attention_dropout: float
    dropout: float
    qkv: nn.Linear
    proj: nn.Linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend within windows, shape ``(batch, height, width, channels)``."""
        batch, height, width, _ = x.shape
        rows, columns = self.window_size
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        size = (x.shape[1], x.shape[2])
        shift = [
            0 if side <= window else s for side, window, s in zip(size, self.window_size, self.shift_size, strict=True)
        ]
        if sum(shift):
            x = torch.roll(x, (-shift[0], -shift[1]), (1, 2))
        grid = (size[0] // rows, size[1] // columns)
        windows = (
            x.view(batch, grid[0], rows, grid[1], columns, -1).permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(0, 2)
        )
        out = self._attend(windows, self._mask(windows, size, shift) if sum(shift) else None)
        out = out.view(batch, *grid, rows, columns, -1).permute(0, 1, 3, 2, 4, 5).flatten(1, 2).flatten(2, 3)
        if sum(shift):
            out = torch.roll(out, (shift[0], shift[1]), (1, 2))
        return out[:, :height, :width].contiguous()

    def _attend(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Attend within each window, shape ``(windows, tokens, channels)``."""
        projected = F.linear(x, self.qkv.weight, self._bias())
        q, k, v = projected.view(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        scores = self._scores(q, k) + self._position_bias()
        if mask is not None:
            scores = (scores.view(-1, len(mask), *scores.shape[1:]) + mask[None, :, None]).flatten(0, 1)
        weights = F.dropout(scores.softmax(-1), self.attention_dropout, self.training)
        return F.dropout(self.proj((weights @ v).transpose(1, 2).flatten(2)), self.dropout, self.training)

    def _position_bias(self) -> torch.Tensor:
        bias: torch.Tensor = self.get_relative_position_bias()  # type: ignore[operator]
        return bias

    def _bias(self) -> torch.Tensor | None:
        bias: torch.Tensor | None = self.qkv.bias
        return bias

    def _scores(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = q * q.shape[-1] ** -0.5
        return scaled @ k.transpose(-2, -1)

    def _mask(self, x: torch.Tensor, size: tuple[int, int], shift: list[int]) -> torch.Tensor:
        """Return -100 between tokens that only the shift brought together, shape ``(windows, tokens, tokens)``."""
        rows, columns = self.window_size
        region = x.new_zeros(size)
        count = 0
        for top, bottom in ((0, -rows), (-rows, -shift[0]), (-shift[0], None)):
            for left, right in ((0, -columns), (-columns, -shift[1]), (-shift[1], None)):
                region[top:bottom, left:right] = count
                count += 1
        region = (
            region.view(size[0] // rows, rows, size[1] // columns, columns).transpose(1, 2).reshape(-1, rows * columns)
        )
        apart = region.unsqueeze(1) - region.unsqueeze(2)
        return torch.zeros_like(apart).masked_fill(apart != 0, -100.0)


class HeadwiseSwin(_Headwise, ShiftedWindowAttention):  # type: ignore[misc]
    """Swin v1."""


class HeadwiseSwinV2(_Headwise, ShiftedWindowAttentionV2):  # type: ignore[misc]
    """Swin v2: cosine attention, and keys without a bias."""

    def _bias(self) -> torch.Tensor | None:
        if self.qkv.bias is None:
            return None
        q, k, v = self.qkv.bias.chunk(3)
        return torch.cat([q, torch.zeros_like(k), v])

    def _scores(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        scale = self.get_parameter("logit_scale")
        cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return cosine * torch.clamp(scale, max=math.log(100.0)).exp()


class HeadwiseMaxViT(RelativePositionalMultiHeadAttention):  # type: ignore[misc]
    """MaxViT's attention within windows or across a grid of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend, shape ``(batch, groups, tokens, channels)``."""
        q, k, v = self.to_qkv(x).view(*x.shape[:3], 3, self.n_heads, self.head_dim).permute(3, 0, 1, 4, 2, 5)
        scores = q @ (k * self.scale_factor).transpose(-2, -1) + self.get_relative_positional_bias()
        out: torch.Tensor = self.merge_dims((scores.softmax(-1) @ v).transpose(2, 3).flatten(3))
        return out
