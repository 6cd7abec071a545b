"""Small reference networks for the shipped search spaces."""

from autoprune.zoo.cifar_resnet import CifarResNet, resnet20, resnet32, resnet44, resnet56, resnet110
from autoprune.zoo.mlp import mlp
from autoprune.zoo.plain_cnn import PlainCNN, cnn6, small_cnn

__all__ = [
    "CifarResNet",
    "PlainCNN",
    "cnn6",
    "mlp",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "small_cnn",
]
