"""Extra state goes through a file bit for bit, or is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.config.task import CallableRef
from autoprune.errors import SavedModelError
from autoprune.formats.architecture import architecture_diff
from autoprune.formats.extra_state import decode_extra_states
from autoprune.formats.saved_model import load_model, save_model

REF = CallableRef(callable="somewhere:net")


class Holding(nn.Module):
    def __init__(self, state: Any = None) -> None:
        super().__init__()
        self.layer, self.state = nn.Linear(3, 2), state

    def get_extra_state(self) -> Any:
        return self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


def saved(folder: Path, model: nn.Module) -> int:
    return save_model(folder, model, architecture_diff(model, model, REF))


def test_plain_values_and_tensors_come_back(tmp_path: Path) -> None:
    state = {
        "scale": 0.1 + 0.2,
        "huge": 2**80,
        "infinite": float("-inf"),
        3: [True, None, "text", ("a", 1.5)],
        "nested": {"mask": torch.tensor([True, False]), "half": torch.ones(2, 2, dtype=torch.bfloat16), "none": {}},
    }
    model = nn.Sequential(Holding(state), Holding(torch.arange(3)), Holding())
    saved(tmp_path, model)
    found = load_model(tmp_path, lambda: nn.Sequential(Holding(), Holding(), Holding()))
    again, inner = found[0].state, found[0].state.pop("nested")
    assert again == {key: value for key, value in state.items() if key != "nested"}
    assert torch.equal(inner["mask"], torch.tensor([True, False]))
    assert inner["half"].dtype == torch.bfloat16
    assert inner["none"] == {}
    assert torch.equal(found[1].state, torch.arange(3))
    assert found[2].state is None


def test_a_network_without_any_has_the_same_file_as_ever(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    size = saved(tmp_path, model)
    assert b"values" not in (tmp_path / "model.safetensors").read_bytes()
    assert size < saved(tmp_path, Holding({"scale": 1.0}))


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (object(), "a value of type object"),
        ({"when": [b"bytes"]}, "a value of type bytes"),
        ({(1, 2): 3}, "a key of type tuple"),
        (torch.ones(2).numpy(), "a value of type ndarray"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(tmp_path: Path, state: Any, told: str) -> None:
    model = nn.Sequential(nn.ReLU(), Holding(state))
    with pytest.raises(SavedModelError, match=rf"get_extra_state of module '1' \(Holding\) must give .*{told}"):
        saved(tmp_path, model)
    assert not any(tmp_path.iterdir())


def test_a_module_that_cannot_take_it_back_is_refused(tmp_path: Path) -> None:
    class OneWay(nn.Linear):
        def get_extra_state(self) -> Any:
            return 1

    with pytest.raises(
        SavedModelError, match=r"the network \(OneWay\) defines get_extra_state, but no set_extra_state"
    ):
        saved(tmp_path, OneWay(2, 2))


def test_a_network_that_has_it_no_more_is_another(tmp_path: Path) -> None:
    saved(tmp_path, nn.Sequential(nn.ReLU(), Holding(1.0)))

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

    with pytest.raises(SavedModelError, match="only one of both has extra state in module '1'"):
        load_model(tmp_path, lambda: nn.Sequential(nn.ReLU(), Plain()))


@pytest.mark.parametrize("value", [{"call": ["os.system"]}, {"tensor": "no such"}, {}, {"list": 3}, {"a": 1, "b": 2}])
def test_a_strangers_values_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"extra state can't be read|values to unpack"):
        decode_extra_states({"0": value}, {})


class OwnWay(nn.Module):
    """Saves an attribute under a key of its own, as was done before there was extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.ones(2)), 1.0

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "scale"] = torch.tensor(self.scale, dtype=torch.float64)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self.scale = float(state_dict.pop(prefix + "scale"))
        super()._load_from_state_dict(state_dict, prefix, *args)


def test_state_that_a_module_saves_in_its_own_way_comes_back(tmp_path: Path) -> None:
    model = nn.Sequential(OwnWay(), nn.Linear(2, 2))
    model[0].scale, model[0].weight.data[1] = 0.1, 5.0
    saved(tmp_path, model)
    found = load_model(tmp_path, lambda: nn.Sequential(OwnWay(), nn.Linear(2, 2)))
    assert found[0].scale == 0.1
    assert torch.equal(found[0].weight, model[0].weight)
    assert torch.equal(found[1].weight, model[1].weight)
    with pytest.raises(SavedModelError, match=r"1 tensors don't fit, the first one '0.scale'"):
        load_model(tmp_path, lambda: nn.Sequential(nn.PReLU(2), nn.Linear(2, 2)))


def test_a_state_dict_of_other_things_is_refused(tmp_path: Path) -> None:
    class OtherThings(OwnWay):
        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            destination[prefix + "scale"] = [self.scale]

    with pytest.raises(SavedModelError, match=r"must hold tensors, got a list under '0.scale'"):
        saved(tmp_path, nn.Sequential(OtherThings()))
