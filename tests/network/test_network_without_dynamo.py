"""torch's compiler is not loaded, and what is run without it does the same."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.cost.flops import count_macs
from autoprune.network.without_dynamo import optimizer_without_dynamo

SEARCH = """
import sys
from pathlib import Path
from tiny import brief_latencies, copy_study
from autoprune.engines.inline import run_in_process
from autoprune.search.run import run_search
with brief_latencies():
    space = copy_study(Path(sys.argv[1]), Path(sys.argv[2]), {})
    outcome = run_search(space, space.parent / "results", run_in_process)
assert outcome.driver.n_told == 6
assert [name for name in sys.modules if name.startswith("torch._dynamo")] == []
"""


def test_a_search_does_not_load_the_compiler(trained_tiny: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, trained_tiny, tmp_path],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


PARTS = """
import sys
import torch
from torch import nn
from autoprune.cost.flops import count_macs
from autoprune.network.without_dynamo import DispatchModeWithoutDynamo, optimizer_without_dynamo

def check(part):
    assert "torch._dynamo" not in sys.modules, f"torch {torch.__version__} loads its compiler in spite of {part}"

class Passing(DispatchModeWithoutDynamo):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))

net = nn.Linear(3, 2)
check("nothing: import alone")
with Passing():
    net(torch.ones(1, 3))
check("DispatchModeWithoutDynamo")
assert count_macs(net, torch.ones(1, 3)) == 6
check("call_without_dynamo")
for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
    optimizer = optimizer_without_dynamo(kind)(net.parameters(), lr=0.1)
    optimizer.zero_grad()
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    check(f"optimizer_without_dynamo({kind.__name__})")
"""


def test_each_part_keeps_the_compiler_from_loading() -> None:
    done = subprocess.run([sys.executable, "-c", PARTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (torch.optim.Adam, {"betas": (0.8, 0.99), "weight_decay": 0.01}),
        (torch.optim.AdamW, {"betas": (0.8, 0.99)}),
    ],
)
def test_an_optimizer_does_what_torchs_own_does(kind: type[torch.optim.Optimizer], settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    models = [nn.Linear(4, 3)]
    models.append(copy.deepcopy(models[0]))
    optimizers: list[Any] = [
        each(model.parameters(), lr=0.1, **settings)
        for each, model in zip((kind, optimizer_without_dynamo(kind)), models, strict=True)
    ]
    inputs = torch.randn(8, 4)
    for step in range(5):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
        if step == 2:
            optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for own, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(other, own, rtol=0, atol=0)
        assert other.requires_grad
    assert repr(optimizers[1]) == repr(optimizers[0])
    assert isinstance(optimizers[1], kind)


def test_torchs_counter_counts_the_same_where_the_compiler_is_there() -> None:
    import torch._dynamo

    model, inputs = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.randn(1, 3, 8, 8)
    with FlopCounterMode(display=False) as counter:
        model(inputs)
    assert count_macs(model, inputs) == counter.get_total_flops() // 2 == 8 * 6 * 6 * 27
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(inputs), model(inputs))
