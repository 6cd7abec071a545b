"""Build a torch optimizer from its configuration."""

from collections.abc import Iterable
from typing import Any

import torch

from autoprune.config.optimizers import OPTIMIZERS
from autoprune.network.without_dynamo import optimizer_without_dynamo
from autoprune.training.schedules.parameters import resolve_params
from autoprune.trial import OptimizerConfig

_KINDS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[torch.nn.Parameter], lr: float
) -> torch.optim.Optimizer:
    """Build the optimizer that ``config`` names.

    Weight decay acts on every parameter, biases and batch norm included, as torch does by default. Nesterov without
    momentum is plain SGD.

    Raises:
        AutopruneError: If the name or a setting is not one of ``OPTIMIZERS``.

    Source:
        sgd: Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html, in torch's form.
        adam: Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1.
        adamw: Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2.
    """
    params: dict[str, Any] = resolve_params("optimizer", OPTIMIZERS, config.name, config.params)
    settings: dict[str, Any] = {"lr": lr, "weight_decay": params["weight_decay"]}
    if config.name == "sgd":
        momentum: float = params["momentum"]
        settings |= {"momentum": momentum, "nesterov": params["nesterov"] and momentum > 0}
    else:
        settings["betas"] = (params["beta1"], params["beta2"])
    optimizer: torch.optim.Optimizer = optimizer_without_dynamo(_KINDS[config.name])(parameters, **settings)
    return optimizer
