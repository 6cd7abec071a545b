"""Retry work with half as many examples at once while a device's memory is not enough."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from autoprune.errors import AutopruneError, describe_error

Done = TypeVar("Done")

WAY_OUT = (
    "Give a trial more of a GPU (resources.gpus_per_trial), set training.precision to bf16, or take smaller inputs or "
    "a smaller model."
)


class OutOfDeviceMemory(AutopruneError):  # noqa: N818 - torch's own word, but for its ending
    """Not even a single example fits in a device's memory."""


def find_executable_batch_size(
    attempt: Callable[[int], Done],
    n_at_once: int,
    device: torch.device | str,
    what: str,
    undo: Callable[[], None] = lambda: None,
) -> tuple[Done, int]:
    """Attempt work on a batch, and on half as many examples while torch is out of device memory.

    Args:
        attempt: Does the work, given the most examples in one forward pass; keeps nothing when it fails.
        n_at_once: Examples of the first attempt, 1 or more.
        what: Name of the work, for the error.
        undo: Called after an attempt that failed and before the next one.

    Returns:
        The result of the attempt, and the number of examples with which it succeeded.

    Raises:
        OutOfDeviceMemory: If a single example is too much, or the attempt fails otherwise with the few that may fit, as
            batch norm does with one.
    """
    cause: str | None = None
    while True:
        try:
            return attempt(n_at_once), n_at_once
        except torch.OutOfMemoryError as error:
            cause = " ".join(str(error).split()).rstrip(".")
        except AutopruneError:
            raise
        except Exception as error:
            if cause is None:
                raise
            raise OutOfDeviceMemory(
                f"{what}: the device's memory is not enough for more than {n_at_once} at once ({cause}), and "
                f"with so few: {describe_error(error)}. {WAY_OUT}"
            ) from error
        # Not in the except clause: there, the error would keep the frames of the attempt, and so its tensors, alive.
        if n_at_once == 1:
            raise OutOfDeviceMemory(
                f"{what}: the device's memory is not enough for a single example: {cause}. {WAY_OUT}"
            )
        n_at_once //= 2
        free_device_memory(device)
        undo()


def free_device_memory(device: torch.device | str) -> None:
    """Return unused memory of a GPU to other processes; does nothing on the CPU."""
    if torch.device(device).type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
