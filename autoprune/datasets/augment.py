"""Changes of training images that keep their class."""

import torch
from torch.nn import functional


def random_crop_flip(inputs: torch.Tensor, generator: torch.Generator, padding: int = 4) -> torch.Tensor:
    """Shift every image at random within a border of zeros, and mirror half of them.

    Args:
        inputs: Normalised images, shape ``(n, channels, height, width)``.
        generator: Source of the shifts and mirrorings, on the CPU.
        padding: Highest shift in pixels, each way; 0 only mirrors.

    Returns:
        Changed images, of the same shape.

    Source:
        He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385
    """
    n, n_channels, height, width = inputs.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    rows = top + torch.arange(height)
    columns = left + torch.where(mirrored, torch.arange(width - 1, -1, -1), torch.arange(width))
    padded = functional.pad(inputs, (padding,) * 4)
    flat = (rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]).to(inputs.device)
    return (
        padded.flatten(2)
        .gather(2, flat.flatten(1)[:, None, :].expand(-1, n_channels, -1))
        .view(n, n_channels, height, width)
    )
