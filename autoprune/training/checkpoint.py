"""Write and read a training state as one file that is never read in part."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from autoprune.files import replacing

_MAGIC = b"autoprune checkpoint 1\n"
_DIGEST_SIZE = hashlib.sha256().digest_size


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state so that a crash leaves the old file or the new one, never a part.

    The file is a magic line, the SHA-256 of the rest, and ``torch.save``'s bytes.

    Args:
        state: Nested dicts and lists of tensors, numbers and strings: what ``torch.load(weights_only=True)`` reads.

    Raises:
        OSError: If the folder does not exist or can't be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with replacing(path) as file:
        file.write(_MAGIC)
        file.write(hashlib.sha256(buffer.getbuffer()).digest())
        file.write(buffer.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a state back, its tensors on the CPU.

    Returns:
        The state; ``None`` if there is no file, or it is truncated, damaged or not one of ours. Nothing in the file is
        ever executed.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    start = len(_MAGIC) + _DIGEST_SIZE
    payload = content[start:]
    if not content.startswith(_MAGIC) or content[len(_MAGIC) : start] != hashlib.sha256(payload).digest():
        return None
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        return None
    return state if isinstance(state, dict) else None
