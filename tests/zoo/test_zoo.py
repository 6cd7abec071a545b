"""The shipped networks: their size, their names, and that they learn."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from autoprune.datasets import digits
from autoprune.errors import TaskError
from autoprune.zoo import cnn6, mlp, resnet20, resnet32, resnet44, resnet56, resnet110, small_cnn

HE_2016_TABLE_6 = {resnet20: 0.27e6, resnet32: 0.46e6, resnet44: 0.66e6, resnet56: 0.85e6, resnet110: 1.7e6}


@pytest.mark.parametrize("build", HE_2016_TABLE_6)
def test_cifar_resnets_are_of_the_papers_size(build: object) -> None:
    n_params = sum(parameter.numel() for parameter in build().parameters())
    assert n_params == pytest.approx(HE_2016_TABLE_6[build], rel=0.025)


def test_cifar_resnet_names_and_output() -> None:
    model = resnet20(num_classes=7)
    names = [name for name, _ in model.named_parameters()]
    assert names[:6] == [
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "layer1.0.conv1.weight",
        "layer1.0.bn1.weight",
        "layer1.0.bn1.bias",
    ]
    assert names[-2:] == ["linear.weight", "linear.bias"]
    assert len(names) == 3 + 9 * 6 + 2
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_widening_shortcut_is_strided_and_zero_padded() -> None:
    block = resnet20().layer2[0].eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert out.shape == (2, 32, 4, 4)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_plain_cnns() -> None:
    assert small_cnn(num_classes=4, in_channels=3, width=5)(torch.randn(2, 3, 8, 8)).shape == (2, 4)
    assert cnn6()(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    widths = [module.out_channels for module in cnn6((1, 2, 3, 4, 5, 6)).modules() if isinstance(module, nn.Conv2d)]
    assert widths == [1, 2, 3, 4, 5, 6]
    with pytest.raises(TaskError, match=r"six numbers, .* got \[1, 2\]"):
        cnn6((1, 2))


def test_mlp() -> None:
    model = mlp(64, (20, 7), 3)
    assert [name for name, _ in model.named_children()] == ["flatten", "linear1", "relu1", "linear2", "relu2", "head"]
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    assert mlp(4, (), 2)(torch.randn(3, 4)).shape == (3, 2)


def test_small_cnn_learns_the_digits() -> None:
    torch.manual_seed(0)
    data, model = digits(), small_cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6 * 17)
    for _ in range(6):
        for indices in torch.randperm(len(data.train)).split(64):
            inputs, targets = data.train.batch(indices)
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            schedule.step()
    inputs, targets = data.test.batch(torch.arange(len(data.test)))
    with torch.no_grad():
        assert (model.eval()(inputs).argmax(1) == targets).float().mean() >= 0.97
