"""Read and augment the batches of an epoch; for a GPU, while it still computes the step before."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from autoprune.network.call import Inputs, plain_inputs
from autoprune.tasks.task import Task

READER_GRACE_S = 5.0
"""How long the reading thread may go on after the epoch has failed, in seconds."""


@dataclass(frozen=True)
class MicroBatch:
    """The part of a batch that goes through the network at once.

    Attributes:
        share: Of the batch's examples, in (0, 1].
    """

    inputs: Inputs
    targets: torch.Tensor
    share: float


class Prefetcher:
    """Read an epoch's batches one by one, each in nearly equal micro-batches; a context manager.

    A micro-batch is read when it is asked for. With ``ahead``, :meth:`prefetch_next` has a thread prepare the next
    batch, down to pinned memory, if it is a single micro-batch.

    Args:
        batches: Indices of the examples of every step.
        n_at_once: Most examples in a micro-batch; ``None`` leaves a batch whole.
        generator: Source of the augmentation's random numbers.
    """

    def __init__(
        self,
        task: Task,
        batches: Sequence[torch.Tensor],
        n_at_once: int | None,
        generator: torch.Generator,
        *,
        ahead: bool,
    ) -> None:
        self._task = task
        self._batches = batches
        self._n_at_once = n_at_once
        self._generator = generator
        self._thread = _Thread() if ahead else None
        self._coming: Future[list[MicroBatch]] | None = None
        self._n_given = 0
        self._states: dict[int, torch.Tensor] = {}

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.end(READER_GRACE_S if error is not None else None)

    @property
    def largest_micro_batch(self) -> int:
        """Number of examples in the largest micro-batch of the next batch."""
        return len(self._divided(self._n_given)[0])

    def next_batch(self) -> Iterable[MicroBatch]:
        """Return the micro-batches of the next batch, to be iterated once.

        Raises:
            Exception: Whatever reading and augmenting raise, here or when a micro-batch is asked for.
        """
        number, coming = self._n_given, self._coming
        self._coming = None
        self._n_given += 1
        if coming is not None:
            return coming.result()
        return list(self._read(number)) if self._thread is not None and self._is_whole(number) else self._read(number)

    def prefetch_next(self) -> None:
        """Begin to prepare the next batch, if there is one and it and the batch before are one micro-batch each."""
        number = self._n_given
        if self._thread is None or self._coming is not None or number == len(self._batches):
            return
        if self._is_whole(number - 1) and self._is_whole(number):
            self._coming = self._thread.submit(lambda: [_pinned(part) for part in self._read(number)])

    def wait_for_reader(self) -> None:
        """Wait until the thread reads no data, so that two threads never read at once."""
        if self._coming is not None:
            self._coming.exception()  # raised by `next_batch`

    def redivide_batch(self, n_at_once: int) -> Iterable[MicroBatch]:
        """Return the batch given last in smaller micro-batches; those of later batches are as small.

        The generator's numbers are those of an epoch that had micro-batches of this size.
        """
        self.wait_for_reader()
        self._coming = None
        self._n_at_once = n_at_once
        number = self._n_given - 1
        self._generator.set_state(self._states[number])
        return self._read(number)

    def _divided(self, number: int) -> Sequence[torch.Tensor]:
        indices = self._batches[number]
        return indices.tensor_split(-(-len(indices) // (self._n_at_once or len(indices))))

    def _is_whole(self, number: int) -> bool:
        return len(self._divided(number)) == 1

    def _read(self, number: int) -> Iterator[MicroBatch]:
        self._states = {known: state for known, state in self._states.items() if known == number - 1}
        self._states[number] = self._generator.get_state()
        for indices in self._divided(number):
            inputs, targets = self._task.data.train.batch(indices)
            if self._task.augment is not None:
                inputs = self._task.augment(inputs, self._generator)
            yield MicroBatch(inputs, targets, len(indices) / len(self._batches[number]))


class _Thread:
    """A daemon thread that does one piece of work after the other. It is a daemon because a read may never end."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="autoprune-feed", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        self._work.put((work, future))
        return future

    def end(self, timeout: float | None) -> None:
        """Begin no more work, and wait for the work in progress."""
        self._work.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            work, future = item
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)


def _pinned(part: MicroBatch) -> MicroBatch:
    if not torch.cuda.is_available():
        return part
    inputs, targets = tree_map_only(
        torch.Tensor,
        lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor,
        (plain_inputs(part.inputs), part.targets),
    )
    return MicroBatch(inputs, targets, part.share)
