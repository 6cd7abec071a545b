"""Attention layers whose code takes the size of a head from the hidden size, and so can't do with fewer heads.

When heads leave such a layer, it becomes one of a subclass that remembers the size of a head. Its parameters, their
names and its hooks are as before.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from autoprune.errors import PruningError


def follow_heads(module: nn.Module) -> bool:
    """Make a layer of a known class, whose tensors are pruned, agree with them; ``False`` if its class is not known."""
    if isinstance(module, nn.MultiheadAttention):
        HeadwiseMultiheadAttention.follow(module)
        return True
    adapt = _torchvision_adapter(type(module))
    if adapt is None:
        return False
    adapt(module)
    return True


def is_known(module: nn.Module) -> bool:
    """Whether ``follow_heads`` knows the layer's class."""
    return isinstance(module, nn.MultiheadAttention) or _torchvision_adapter(type(module)) is not None


def _torchvision_adapter(cls: type) -> Callable[[nn.Module], None] | None:
    if not any(base.__module__.startswith("torchvision.models.") for base in cls.__mro__):
        return None
    from autoprune.pruning.graph.attention_torchvision import adapter

    return adapter(cls)


class HeadwiseMultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` with fewer heads than its embedding has room for."""

    head_dim: int

    @classmethod
    def follow(cls, module: nn.MultiheadAttention) -> None:
        """Turn a module whose tensors are pruned into one of this class, in place; leave it alone if they are not."""
        packed = module.in_proj_weight
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        q, k, v = weights if packed is None else (packed[: len(packed) // 3],) * 3
        if q.shape == (module.num_heads * module.head_dim, module.embed_dim):
            return
        if module.bias_k is not None or module.add_zero_attn:
            raise PruningError("nn.MultiheadAttention with bias_k, bias_v or add_zero_attn can't lose heads")
        if not isinstance(module, cls):
            module.__class__ = cls
            # With this flag off, TransformerEncoderLayer's fused kernel, which knows no such attention, stays away.
            module._packed_weights = module._qkv_same_embed_dim
            module._qkv_same_embed_dim = False
        module.num_heads = q.shape[0] // module.head_dim
        module.embed_dim, module.kdim, module.vdim = q.shape[1], k.shape[1], v.shape[1]

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend as ``nn.MultiheadAttention`` does."""
        batched = query.dim() == 3
        q, k, v = (x if batched else x.unsqueeze(0 if self.batch_first else 1) for x in (query, key, value))
        if not self.batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        q, k, v = (self._heads(x, i) for i, x in enumerate((q, k, v)))
        mask = self._mask(q, k, attn_mask, key_padding_mask)
        dropout = self.dropout if self.training else 0.0
        weights: torch.Tensor | None = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = F.dropout(weights, dropout) if dropout else weights
            heads = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            heads = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out: torch.Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        if not self.batch_first:
            out = out.transpose(0, 1)
        return (out if batched else out.squeeze(0 if self.batch_first else 1)), weights

    def _heads(self, x: torch.Tensor, which: int) -> torch.Tensor:
        """Compute queries (0), keys (1) or values (2), shape ``(batch, heads, tokens, size of a head)``."""
        if self._packed_weights:
            weight = self.in_proj_weight.chunk(3)[which]
        else:
            weight = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)[which]
        bias = None if self.in_proj_bias is None else self.in_proj_bias.chunk(3)[which]
        projected = F.linear(x, weight, bias)
        return projected.view(*projected.shape[:-1], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(self, q: torch.Tensor, k: torch.Tensor, attn_mask: Any, key_padding_mask: Any) -> torch.Tensor | None:
        """Join both masks as numbers to add, shape ``(batch or 1, heads or 1, queries, keys)``."""
        mask: torch.Tensor | None = None
        if attn_mask is not None:
            mask = _as_numbers(attn_mask, q)
            mask = mask.view(-1, self.num_heads, *mask.shape[-2:]) if mask.dim() == 3 else mask[None, None]
        if key_padding_mask is not None:
            padding = _as_numbers(key_padding_mask, q).view(-1, 1, 1, k.shape[2])
            mask = padding if mask is None else mask + padding
        return mask


def _as_numbers(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill(mask, float("-inf"))
