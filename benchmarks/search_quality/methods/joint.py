"""Schedules and ratios: searched together, or one after the other with the other fixed.

Ratios are searched by the tree of ``cost_aware``, with the importance criterion and the length of each trial.
Schedules (learning rate, batch size, the optimizer's settings) are searched by Optuna's TPE, beginning with the space's
first guess. It minimises the logarithm of the validation loss, whose differences are above the noise where those of
accuracy are not.
"""

import itertools
import math
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FixedTrial

from autoprune.search.space import SearchSpace
from autoprune.study.seeds import derive_seed
from autoprune.trial import TrialConfig, TrialResult
from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import Method, Widths, uniform_steps
from benchmarks.search_quality.methods.search import SEARCHES

RATIOS_SHARE = 1 / 2
"""Share of the epochs that the ratios get where they come first."""

SCHEDULES_SHARE = 1 / 3
"""Share of the epochs that the schedules get where they come first."""

CUTS = (0.5, 0.1)
"""Shares of the dense MACs, one ratio for all groups, at which schedules are tried where they come first."""

N_UNIFORM = 100
"""Uniform networks among which those nearest to ``CUTS`` are sought."""

N_RANDOM = 5
"""Schedules that TPE takes at random before it models them; its own default, 10, is all that there are epochs for."""

DIVERGED = 10.0
"""What stands for the logarithm of a loss that is not a number."""


def ratios_first(lab: Lab) -> None:
    """Half of the epochs for the ratios, the training at the space's first guess; then the front's networks train on.

    They do so from the widest to the narrowest, over and over, a short trial each, from the best network that there is
    of these widths; all share one search of the training, which is judged by how the parent's loss falls.
    """
    space = training_space(lab)
    guess = space.suggest(FixedTrial(first_guess(space)), 0)
    lab.search(ratio_space(lab, guess, int(RATIOS_SHARE * lab.setting.budget)))
    front = lab.trials()[lambda rows: rows["on_front"]].sort_values("macs_share", ascending=False)
    best = [lab.result(int(number)) for number in front["number"]]
    study = schedule_study(lab, space)
    for position in itertools.cycle(range(len(best))):
        if lab.left < 1:
            return
        parent, trial = best[position], study.ask()
        result = train_as(lab, space.suggest(trial, 0), parent.kept, parent.number)
        study.tell(trial, log_loss(result) - log_loss(parent))
        best[position] = max(parent, result, key=lambda each: (each.metric, -log_loss(each)))


def schedules_first(lab: Lab) -> None:
    """A third of the epochs for the training, each tried from dense at two cuts; then the ratios with the best one.

    The tree may start from the networks that these trials have trained.
    """
    space = training_space(lab)
    study = schedule_study(lab, space)
    cuts = [uniform_at(lab, share) for share in CUTS]
    for _ in range(int(SCHEDULES_SHARE * lab.setting.budget) // (lab.trial_epochs * len(cuts))):
        trial = study.ask()
        config = space.suggest(trial, 0)
        study.tell(trial, sum(log_loss(train_as(lab, config, widths, None)) for widths in cuts) / len(cuts))
    lab.search(ratio_space(lab, space.suggest(FixedTrial(study.best_params), 0), lab.left))


def training_space(lab: Lab) -> SearchSpace:
    """The lab's space with only the training to search, in the setting's short trials."""
    pruning = [{"method": "neuron", "ratio": 0.0}]
    return lab.narrowed({"training": {"epochs": lab.trial_epochs}, "pruning": pruning})


def ratio_space(lab: Lab, training: TrialConfig, epochs: int) -> SearchSpace:
    """The lab's space with the training fixed, but for the length of each trial, and the epochs that it may spend."""
    optimizer = {"name": training.optimizer.name, **training.optimizer.params}
    schedules = {
        name: [{"kind": schedule.kind, **schedule.params}]
        for name, schedule in (
            ("lr_schedule", training.lr_schedule),
            ("batch_size_schedule", training.batch_size_schedule),
        )
    }
    return lab.narrowed({"training": {"optimizer": [optimizer], **schedules}, "search": {"epochs": epochs}})


def first_guess(space: SearchSpace) -> dict[str, Any]:
    """The training that a person would try first, values that do not apply included."""
    return {dimension.name: space.first_guess(dimension) for dimension in space.dimensions()}


def schedule_study(lab: Lab, space: SearchSpace) -> optuna.Study:
    """A search of the training by TPE, that begins with the first guess."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = derive_seed(lab.seed, 0, "schedules")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=N_RANDOM)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(first_guess(space))
    return study


def train_as(lab: Lab, config: TrialConfig, widths: Widths, parent: int | None) -> TrialResult:
    """Cut a network and train it with the schedules of ``config``."""
    return lab.train(
        widths,
        epochs=config.epochs,
        parent=parent,
        optimizer=config.optimizer,
        lr_schedule=config.lr_schedule,
        batch_size_schedule=config.batch_size_schedule,
    )


def uniform_at(lab: Lab, share: float) -> Widths:
    """The network with one ratio for all groups whose MACs are nearest to a share of the dense network's."""
    return min(uniform_steps(lab, N_UNIFORM), key=lambda widths: abs(math.log(lab.macs_share(widths) / share)))


def log_loss(result: TrialResult) -> float:
    """Logarithm of the validation loss."""
    loss = result.loss
    return math.log(loss) if loss is not None and math.isfinite(loss) else DIVERGED


_TREE: Mapping[str, Any] = SEARCHES["cost_aware_tree"].space

ORDERS = {
    "joint": SEARCHES["cost_aware_tree"],
    **{method.__name__: Method(method, _TREE, chooses_epochs=True) for method in (ratios_first, schedules_first)},
}
