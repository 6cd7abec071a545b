"""An export's network must give what its trial ended with."""

import json

import pytest
import torch
from torch import nn

from autoprune.errors import ExportError
from autoprune.formats.outputs import reproducible_outputs
from autoprune.formats.stored_outputs import N_VALUES, SAME, check_stored_outputs, stored_outputs


class TwoHeads(nn.Module):
    """One output of many values, and one of a few whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Linear(4, 3000), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"map": self.large(x), "class": self.small(x).argmax(1)}


def through_json(model: nn.Module, inputs: torch.Tensor) -> dict[str, object]:
    stored = json.dumps(stored_outputs(inputs, reproducible_outputs(model, inputs)))
    assert len(stored) < 2 * N_VALUES * 4 * 4 / 3
    loaded: dict[str, object] = json.loads(stored)
    return loaded


def test_the_same_network_passes_and_a_changed_one_does_not() -> None:
    model, inputs = TwoHeads(), torch.randn(8, 4)
    stored = through_json(model, inputs)
    assert check_stored_outputs(stored, model, inputs) == SAME
    with torch.no_grad():
        model.large.bias += 0.01
    with pytest.raises(ExportError, match=r"gives other outputs than at the end of its trial \(they differ by 0\.0"):
        check_stored_outputs(stored, model, inputs)


def test_whole_numbers_may_flip_where_rounding_decides_and_no_further() -> None:
    class Rounding(nn.Module):
        def __init__(self, n_flipped: int) -> None:
            super().__init__()
            self.n_flipped = n_flipped

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = (x > 0).long()
            found.view(-1)[: self.n_flipped] = 7
            return found

    inputs = torch.randn(8, 100)
    stored = through_json(Rounding(0), inputs)
    assert check_stored_outputs(stored, Rounding(10), inputs) == SAME
    with pytest.raises(ExportError, match="5% of the whole numbers are others"):
        check_stored_outputs(stored, Rounding(40), inputs)


def test_another_shape_is_another_network() -> None:
    inputs = torch.randn(8, 4)
    stored = through_json(nn.Linear(4, 3), inputs)
    with pytest.raises(ExportError, match=r"their shapes were \[\(8, 3\)\]"):
        check_stored_outputs(stored, nn.Linear(4, 2), inputs)


def test_what_cannot_be_compared_is_said() -> None:
    model, inputs = nn.Linear(4, 3), torch.randn(8, 4)
    stored = through_json(model, inputs)
    assert "the trial stored no outputs" in check_stored_outputs(None, model, inputs)
    assert "are not those that the trial ended with" in check_stored_outputs(stored, model, inputs + 1e-6)
    noisy = nn.Sequential(model, _Noise())
    assert reproducible_outputs(noisy, inputs) is None
    assert stored_outputs(inputs, None) is None
    assert "other outputs at each call" in check_stored_outputs(stored, noisy, inputs)


class _Noise(nn.Module):
    generator = torch.Generator().manual_seed(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn(x.shape, generator=self.generator)


@pytest.mark.parametrize("make", [lambda x: x.double(), lambda x: x.bfloat16(), lambda x: x > 0, lambda x: x[:0]])
def test_outputs_of_any_dtype_and_size(make: object) -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return make(x)  # type: ignore[operator,no-any-return]

    inputs = {"x": torch.randn(5, 3)}
    stored = json.loads(json.dumps(stored_outputs(inputs, reproducible_outputs(Net(), inputs))))
    assert check_stored_outputs(stored, Net(), inputs) == SAME
