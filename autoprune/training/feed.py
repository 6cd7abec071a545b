"""The batches of an epoch, read and augmented; for a GPU, while the step before is still computed there."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from autoprune.tasks.forward import plain_inputs
from autoprune.tasks.task import Inputs, Task


@dataclass(frozen=True)
class Part:
    """Examples that go through the network at once.

    Attributes:
        share: Of the batch.
    """

    inputs: Inputs
    targets: torch.Tensor
    share: float


@dataclass(frozen=True)
class Batch:
    """The examples of one optimizer step.

    Attributes:
        parts: Can be gone through once.
        largest: Examples of the largest part.
    """

    indices: torch.Tensor
    parts: Iterable[Part]
    largest: int
    random_states: tuple[torch.Tensor, torch.Tensor]


class Feed:
    """Gives an epoch's batches one by one; to be used as a context manager.

    Ahead, a thread prepares the next batch, down to pinned memory, from :meth:`look_ahead` on. Else a part is read when
    it is asked for.

    Args:
        batches: Indices of the examples of every step.
        n_at_once: Most examples in a part, which are nearly equal in size; ``None`` leaves a batch whole.
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
        self._thread = ThreadPoolExecutor(1, "autoprune-feed") if ahead else None
        self._coming: Future[Batch] | None = None
        self._n_given = 0

    def __enter__(self) -> "Feed":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def next(self) -> Batch:
        """The next batch.

        Raises:
            Exception: Whatever reading and augmenting raise.
        """
        coming, self._coming = self._coming, None
        batch = self._prepared(self._batches[self._n_given]) if coming is None else coming.result()
        self._n_given += 1
        return batch

    def look_ahead(self) -> None:
        """Begin to prepare the batch after the one given last, if there is one and batches are prepared ahead."""
        if self._thread is not None and self._coming is None and self._n_given < len(self._batches):
            self._coming = self._thread.submit(self._prepared, self._batches[self._n_given])

    def wait(self) -> None:
        """Until the thread reads no data, so that they are never read by two threads at once."""
        if self._coming is not None:
            self._coming.exception()  # raised by `next`

    def again(self, batch: Batch, n_at_once: int) -> Batch:
        """The batch given last in parts that are at most so large, as are those of the batches after it.

        Random numbers come as if the parts had been so large before.
        """
        self.wait()
        self._coming = None
        self._n_at_once = n_at_once
        generator_state, global_state = batch.random_states
        self._generator.set_state(generator_state)
        torch.set_rng_state(global_state)
        return self._prepared(batch.indices)

    def _prepared(self, indices: torch.Tensor) -> Batch:
        states = self._generator.get_state(), torch.get_rng_state()
        n_parts = -(-len(indices) // (self._n_at_once or len(indices)))
        parts = indices.tensor_split(n_parts)
        read = self._read(parts, len(indices))
        return Batch(indices, read if self._thread is None else list(read), len(parts[0]), states)

    def _read(self, parts: Sequence[torch.Tensor], n_examples: int) -> Iterator[Part]:
        for part in parts:
            inputs, targets = self._task.data.train.batch(part)
            if self._task.augment is not None:
                inputs = self._task.augment(inputs, self._generator)
            if self._thread is not None and torch.cuda.is_available():
                inputs, targets = _pinned(inputs), _pinned(targets)
            yield Part(inputs, targets, len(part) / n_examples)


def _pinned(inputs: Any) -> Any:
    return tree_map_only(
        torch.Tensor,
        lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor,
        plain_inputs(inputs),
    )
