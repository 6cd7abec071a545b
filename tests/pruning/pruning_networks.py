"""Small networks of the kinds that the pruning tests need, with non-trivial batch-norm statistics."""

import torch
from torch import nn
from torch.nn import functional as F

# On networks this small, more threads only wait for each other when the cores are busy.
torch.set_num_threads(1)


class OptionABlock(nn.Module):
    """Residual block of He et al. 2016 whose shortcut skips pixels and pads channels with zeros."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.stride, self.pad = stride, (n_out - n_in) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(x + y)


class OptionAResNet(nn.Module):
    """ResNet-20 for CIFAR with three blocks a stage, or a shorter one."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (n_in, n_out) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
            first = OptionABlock(n_in, n_out, 1 if stage == 1 else 2)
            rest = [OptionABlock(n_out, n_out, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class ConvShortcutBlock(nn.Module):
    """Residual block in torchvision's manner, with a convolution in the shortcut where the shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        changes = stride != 1 or n_in != n_out
        shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        self.downsample = shortcut if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + shortcut)


class ConvShortcutResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(ConvShortcutBlock(8, 8, 1), ConvShortcutBlock(8, 8, 1))
        self.layer2 = nn.Sequential(ConvShortcutBlock(8, 12, 2), ConvShortcutBlock(12, 12, 1))
        self.fc = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer2(self.layer1(x)).mean((2, 3)))


class Depthwise(nn.Module):
    """Pointwise, depthwise and pointwise convolutions with squeeze-excite."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(1, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6())
        self.depth = nn.Sequential(nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6())
        self.squeeze = nn.Conv2d(12, 4, 1)
        self.excite = nn.Conv2d(4, 12, 1)
        self.project = nn.Conv2d(12, 6, 1)
        self.fc = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depth(self.expand(x))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.fc(F.relu(self.project(x)).mean((2, 3)))


class Concat(nn.Module):
    """Two branches whose channels are put side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 6, 3, 1, 1)
        self.right = nn.Conv2d(1, 10, 1)
        self.bn = nn.BatchNorm2d(16)
        self.mix = nn.Conv2d(16, 5, 3, 1, 1)
        self.fc = nn.Linear(5, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(torch.cat([self.left(x), self.right(x)], 1)))
        return self.fc(F.relu(self.mix(x)).mean((2, 3)))


class LayerNormMLP(nn.Module):
    """The layer norm takes its statistics over the channels of ``first``; ``second`` can be pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.norm = nn.LayerNorm(16)
        self.second = nn.Linear(16, 12)
        self.head = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.second(F.relu(self.norm(self.first(x.flatten(1)))))))


class TiedMLP(nn.Module):
    """Two layers that share one weight, and so must lose the same rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 12)
        self.second = nn.Linear(64, 12)
        self.second.weight = self.first.weight
        self.head = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return self.head(F.relu(self.first(x)) + F.relu(self.second(x * 0.5)))


def conv_flatten() -> nn.Sequential:
    """A small CNN in which each of the second convolution's channels feeds 16 of the linear layer's inputs."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, 1, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, 1, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 10),
    )


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 14), nn.Tanh(), nn.Linear(14, 10))


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms the statistics and scales of a network that has been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low in (
                    (module.weight, 0.5),
                    (module.bias, -0.5),
                    (module.running_mean, -0.5),
                    (module.running_var, 0.5),
                ):
                    tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
                module.num_batches_tracked.fill_(7)
    return model
