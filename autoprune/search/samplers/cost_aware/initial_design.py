"""The initial design of a tree: a descent from the widest network to the smallest one, each of which then trains on."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoprune.search.samplers.cost_aware.history import History, TrainedModel
from autoprune.search.samplers.cost_aware.settings import InitialDesignSettings

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class InitialDesign:
    """Networks of falling cost, each to be trained from the one before.

    Attributes:
        shares: Share of the dense cost that each step leaves, falling, shape ``(n_steps,)``.
        epochs: Epochs of each step's training, shape ``(n_steps,)``.
        train_on_epochs: Epochs for which each step's network is trained on afterwards, shape ``(n_steps,)``.
    """

    shares: Floats
    epochs: Floats
    train_on_epochs: Floats

    @classmethod
    def plan(
        cls,
        settings: InitialDesignSettings,
        *,
        max_share: float,
        min_share: float,
        budget_epochs: float,
        min_epochs: int,
        max_epochs: int,
    ) -> "InitialDesign":
        """Plan the steps on a budget: the larger it is, the more steps there are, and the longer each is.

        Args:
            max_share: Share of the dense cost that no network may pass.
            min_share: Share of the dense cost that the last step leaves.
            budget_epochs: Epochs of all steps together.
            min_epochs, max_epochs: Range of the epochs of one trial, both ends included.
        """
        wanted = budget_epochs / min_epochs
        if min_epochs != max_epochs:
            wanted = min(settings.steps_per_sqrt_epoch * math.sqrt(budget_epochs), wanted)
        n_steps = min(max(round(wanted), 1), settings.max_steps)
        first = max(min(settings.first_share, max_share), min_share)
        positions = np.linspace(0.0, 1.0, n_steps) ** settings.step_growth  # (n_steps,), 0 is the first step
        weights = 1.0 + settings.extra_narrow_epochs * np.minimum(2 * positions, 1.0)  # (n_steps,)
        epochs = np.clip(budget_epochs * weights / weights.sum(), min_epochs, max_epochs)
        return cls(
            shares=first * (min_share / first) ** positions,
            epochs=epochs,
            train_on_epochs=np.clip(settings.train_on_factor * epochs, min_epochs, max_epochs),
        )

    @property
    def steps(self) -> list[tuple[float, float]]:
        """Share of the dense cost and epochs of each step."""
        return list(zip(self.shares.tolist(), self.epochs.tolist(), strict=True))

    def epochs_at(self, share: float) -> float:
        """Return the epochs of a network of a share of the dense cost, interpolated on the log axis of the cost."""
        return float(np.interp(-math.log(share), -np.log(self.shares), self.epochs))


@dataclass(frozen=True)
class DesignTrial:
    """A trial of the initial design, pruned and trained as a person would try first.

    Attributes:
        share: Share of the dense cost that the network should have; ``None`` keeps the parent's widths.
        epochs: Epochs of its training.
        origin: Name of this trial in the study's records.
        parent: Trained network that it starts from.
        lr_position: Learning rate as a position on its range's axis, in [0, 1]; ``None`` keeps the parent's.
    """

    share: float | None
    epochs: float
    origin: str
    parent: TrainedModel
    lr_position: float | None = None


def lr_origin(position: float) -> str:
    """Name the trial of the first step with this learning rate; studies on disk hold these names."""
    return f"rate {position:g}"


def step_origin(number: int) -> str:
    """Name the trial of a later step, from 1 on; studies on disk hold these names."""
    return f"descent {number}"


def train_on_origin(number: int) -> str:
    """Name the trial that trains a step's network on, from 0 on; studies on disk hold these names."""
    return f"again {number}"


def next_design_trial(
    design: InitialDesign,
    settings: InitialDesignSettings,
    history: History,
    floor: float,
    has_model: Callable[[int], bool],
    *,
    searches_lr: bool,
) -> DesignTrial | None:
    """Return the next trial of the design, or ``None`` when there is none or it must wait for a running one.

    Networks whose files were deleted, because others dominate them, are not trained on.

    Args:
        floor: Score below which a network is worth nothing. The descent ends there.
        has_model: Whether a trial's network is kept.
        searches_lr: Whether the learning rate is searched; otherwise the first step is tried once.
    """
    taken = history.origins()
    trials = _trials(design, settings, history, floor, has_model, searches_lr=searches_lr)
    return next((trial for trial in trials if trial.origin not in taken), None)


def _trials(
    design: InitialDesign,
    settings: InitialDesignSettings,
    history: History,
    floor: float,
    has_model: Callable[[int], bool],
    *,
    searches_lr: bool,
) -> Iterator[DesignTrial]:
    """Yield the trials of the design in order, up to the one that others have to wait for."""
    by_origin = {model.origin: model for model in history.trained.values()}
    running = {pending.origin for pending in history.running.values()}
    dense = history.dense
    (share, epochs), *later = design.steps
    reached: list[TrainedModel | None] = []

    # The first step, with one learning rate after the other.
    best: TrainedModel | None = None
    lr_positions = settings.lr_positions if searches_lr else settings.lr_positions[:1]
    first_position = lr_positions[0]
    for position in lr_positions:
        origin = lr_origin(position)
        yield DesignTrial(share, epochs, origin, dense, position)
        if origin in running:
            return
        tried = by_origin.get(origin)
        if tried is not None and best is not None and tried.score <= best.score:
            break
        if tried is not None:
            best, first_position = tried, position
        if best is not None and best.score >= dense.score - settings.max_first_drop * abs(dense.score):
            break
    parent = best or dense
    reached.append(best)

    # The later steps, each from the network of the step before.
    for number, (share, epochs) in enumerate(later, start=1):
        origin = step_origin(number)
        start = parent if parent.number is None or has_model(parent.number) else dense
        position = first_position + (settings.last_lr_position - first_position) * number / len(later)
        yield DesignTrial(share, epochs, origin, start, position)
        model = by_origin.get(origin)
        if origin in running:
            return
        reached.append(model)
        if model is not None and model.score < floor:
            break
        parent = model or parent

    # Every network that is left is trained on, the narrowest first.
    for number, (model, epochs) in reversed(
        list(enumerate(zip(reached, design.train_on_epochs.tolist(), strict=False)))
    ):
        if model is not None and model.number is not None and model.score >= floor and has_model(model.number):
            yield DesignTrial(None, epochs, train_on_origin(number), model)
