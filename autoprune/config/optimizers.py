"""The optimizers and their settings, for whoever checks a space file; loads no torch."""

from autoprune.training.schedules.parameters import KindSpec, ParameterSpec

_ADAM = {
    "beta1": ParameterSpec("float", low=0, high=1, high_open=True, default=0.9),
    "beta2": ParameterSpec("float", low=0, high=1, high_open=True, default=0.999),
}
OPTIMIZERS: dict[str, KindSpec] = {
    "sgd": KindSpec(
        "stochastic gradient descent with momentum",
        {
            "momentum": ParameterSpec("float", low=0, high=1, high_open=True, default=0.9),
            "nesterov": ParameterSpec("choice", choices=(False, True), default=False),
            "weight_decay": ParameterSpec("float", low=0, default=0.0),
        },
    ),
    "adam": KindSpec(
        "Adam; weight decay as an L2 penalty in the gradient",
        {**_ADAM, "weight_decay": ParameterSpec("float", low=0, default=0.0)},
    ),
    "adamw": KindSpec(
        "Adam with decoupled weight decay",
        {**_ADAM, "weight_decay": ParameterSpec("float", low=0, default=0.01)},
    ),
}
"""Optimizer name -> its settings. The learning rate is not among them: the schedule gives it."""
