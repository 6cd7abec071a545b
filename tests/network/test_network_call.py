"""A network gets its inputs as it takes them."""

from collections import namedtuple

import pytest
import torch
from torch import nn

from autoprune.network.call import call_model, to_device

Pair = namedtuple("Pair", ["left", "right"])
ONES = torch.ones(3, 4)


class Sum(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor | None = None) -> torch.Tensor:
        return left if right is None else left + right


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [(ONES, 1), ((ONES, ONES), 2), ([ONES, ONES], 2), (Pair(ONES, ONES), 2), ({"right": 2 * ONES, "left": ONES}, 3)],
)
def test_inputs_become_arguments(inputs: object, expected: int) -> None:
    assert torch.equal(call_model(Sum(), inputs), expected * ONES)


def test_every_tensor_is_moved_and_the_nesting_kept() -> None:
    moved = to_device({"a": ONES, "b": (ONES, [ONES]), "n": 3}, "meta")
    assert moved["a"].is_meta
    assert isinstance(moved["b"], tuple)
    assert moved["b"][0].is_meta
    assert moved["b"][1][0].is_meta
    assert moved["n"] == 3
