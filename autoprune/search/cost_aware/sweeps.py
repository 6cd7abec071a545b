"""Which cost the next trial is for: sweeps down from the widest network to the smallest, over and over."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from autoprune.search.cost_aware.descent import Descent
from autoprune.search.cost_aware.history import History, Node

RATES = (0.8, 0.55, 0.3)
"""Learning rates, as places on their range's axis from 0 to 1, of which the first that does no harm is taken: trained
from inherited weights with a schedule that settles, networks come out better at high rates, until they break."""

HARM = 0.1
"""Share of the dense accuracy whose loss at the first step means that the rate was too high."""


@dataclass(frozen=True)
class Target:
    """What the next trial is for.

    Attributes:
        share: Of the dense cost, that the network should have.
        epochs: To train it for.
        origin: Sweep and step, for the record.
        parent: Where to start, with the cut and the training that a person would try first; ``None`` leaves the choice
            to the sampler.
        rate: Place of the learning rate on its axis; ``None`` leaves it.
    """

    share: float
    epochs: float
    origin: str
    parent: Node | None = None
    rate: float | None = None


def next_target(
    descent: Descent, history: History, floor: float, has_model: Callable[[int], bool], *, rated: bool
) -> Target:
    """The first target that no trial was for.

    The first sweep is a chain: each step starts from the last and waits for it. While it waits, and after it, come
    sweeps whose steps start from the best network there is; each sweep's costs lie between those of the ones before.

    Args:
        floor: Accuracy below which a network is worth nothing: no sweep goes further down than the first that met it.
        has_model: Whether a trial's network is kept.
        rated: Whether a learning rate is searched.
    """
    taken = history.origins()
    by_origin = {node.origin: node for node in history.nodes.values()}
    reached = 0.0
    for target in _first_sweep(descent, history, has_model, RATES if rated else RATES[:1]):
        if target.origin not in taken:
            return target
        node = by_origin.get(target.origin)
        if node is not None and target.rate is None and node.accuracy < floor:
            reached = target.share
            break
    for sweep in itertools.count(2):
        for step, (share, epochs) in enumerate(descent.steps(_offset(sweep)), start=1):
            origin = _origin(sweep, step)
            if origin not in taken and share >= reached:
                return Target(share, epochs, origin)
    raise AssertionError


def _first_sweep(
    descent: Descent, history: History, has_model: Callable[[int], bool], rates: Sequence[float]
) -> Iterator[Target]:
    """The targets of the first sweep, up to the one that runs now."""
    by_origin = {node.origin: node for node in history.nodes.values()}
    running = {pending.origin for pending in history.running.values()}
    root = history.root
    share, epochs = descent.steps(0.0)[0]
    parent: Node | None = None
    for rate in rates:
        origin = f"rate {rate:g}"
        yield Target(share, epochs, origin, root, rate)
        if origin in running:
            return
        tried = by_origin.get(origin)
        if tried is not None and (parent is None or tried.accuracy > parent.accuracy):
            parent = tried
        if parent is not None and parent.accuracy >= root.accuracy - HARM * abs(root.accuracy):
            break
    parent = parent or root
    for step, (share, epochs) in enumerate(descent.steps(0.0)[1:], start=2):
        origin = _origin(1, step)
        start = parent if parent.number is None or has_model(parent.number) else root
        yield Target(share, epochs, origin, start)
        if origin in running:
            return
        parent = by_origin.get(origin, parent)


def _offset(sweep: int) -> float:
    """How far a sweep after the first is moved: van der Corput's sequence 1/2, 1/4, 3/4, ..."""
    return float(int(f"{sweep - 1:b}"[::-1], 2) / 2 ** (sweep - 1).bit_length())


def _origin(sweep: int, step: int) -> str:
    return f"sweep {sweep} step {step}"
