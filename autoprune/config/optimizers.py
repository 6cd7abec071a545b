"""The optimizers and their settings, for whoever checks a space file; loads no torch."""

from autoprune.training.schedules.parameters import Kind, ParamKind

_ADAM = {
    "beta1": ParamKind("float", low=0, high=1, high_open=True, default=0.9),
    "beta2": ParamKind("float", low=0, high=1, high_open=True, default=0.999),
}
OPTIMIZERS: dict[str, Kind] = {
    "sgd": Kind(
        "stochastic gradient descent with momentum",
        {
            "momentum": ParamKind("float", low=0, high=1, high_open=True, default=0.9),
            "nesterov": ParamKind("choice", choices=(False, True), default=False),
            "weight_decay": ParamKind("float", low=0, default=0.0),
        },
    ),
    "adam": Kind(
        "Adam; weight decay as an L2 penalty in the gradient",
        {**_ADAM, "weight_decay": ParamKind("float", low=0, default=0.0)},
    ),
    "adamw": Kind(
        "Adam with decoupled weight decay",
        {**_ADAM, "weight_decay": ParamKind("float", low=0, default=0.01)},
    ),
}
"""Optimizer name -> its settings. The learning rate is not among them: the schedule gives it."""
