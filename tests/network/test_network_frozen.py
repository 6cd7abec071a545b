"""Which batch norms a network's own training moves."""

import pytest
import torch
from torch import nn

from autoprune.network.frozen import adapting_norms, is_frozen, unfreeze


class KeptInEval(nn.Module):
    """Its own ``train()`` keeps a part in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.body = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

    def train(self, mode: bool = True) -> "KeptInEval":
        super().train(mode)
        self.stem.eval()
        return self


class FrozenNorm(nn.BatchNorm1d):
    """Never leaves evaluation mode."""

    def train(self, mode: bool = True) -> "FrozenNorm":
        return super().train(False)


@pytest.mark.parametrize("mode", [True, False])
def test_norms_that_training_leaves_alone_do_not_adapt(mode: bool) -> None:
    nested = nn.Sequential(KeptInEval(), FrozenNorm(3), nn.BatchNorm1d(3, momentum=0.0), nn.BatchNorm1d(3))
    nested.train(mode)
    nested[3].eval()
    modes = [module.training for module in nested.modules()]
    assert adapting_norms(nested) == [nested[0].body[1], nested[3]]
    assert [module.training for module in nested.modules()] == modes


def test_cumulative_norms_adapt_and_those_without_statistics_do_not() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=None), nn.BatchNorm1d(3, track_running_stats=False))
    assert adapting_norms(model) == [model[0]]


def test_all_that_can_be_trained_is_unfrozen() -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    model.places = nn.Parameter(torch.arange(3), requires_grad=False)
    assert all(is_frozen(parameter) for parameter in model.parameters())
    unfreeze(model)
    assert [is_frozen(parameter) for parameter in (model.weight, model.bias, model.places)] == [False, False, True]
