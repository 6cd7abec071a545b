"""The digits' splits, and the augmentation."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from autoprune.datasets import digits, random_crop_flip
from autoprune.errors import TaskError


def test_splits_are_stratified_and_complete() -> None:
    data = digits(seed=3)
    splits = (data.train, data.validation, data.test)
    assert [len(split) for split in splits] == [1077, 360, 360]
    counts = [torch.bincount(split.targets, minlength=10) / len(split) for split in splits]
    assert max((count - counts[0]).abs().max() for count in counts) < 0.005
    assert data.train.inputs.shape == (1077, 1, 8, 8)
    assert data.train.inputs.dtype == torch.float32
    assert abs(data.train.inputs.mean()) < 1e-5
    assert abs(data.train.inputs.std() - 1) < 1e-3
    images, targets = load_digits(return_X_y=True)
    raw = np.concatenate([split.inputs.numpy().reshape(len(split), 64) for split in splits])
    scale = np.ptp(images) / np.ptp(raw)
    restored = np.rint((raw - raw.min()) * scale).astype(int)
    labelled = {(*row, target) for row, target in zip(images.astype(int).tolist(), targets.tolist(), strict=True)}
    got = torch.cat([split.targets for split in splits]).tolist()
    assert {(*row, target) for row, target in zip(restored.tolist(), got, strict=True)} == labelled


def test_the_seed_decides() -> None:
    assert torch.equal(digits().test.inputs, digits().test.inputs)
    assert not torch.equal(digits().test.inputs, digits(seed=1).test.inputs)


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (0.0, 0.2), (0.2, -0.1)])
def test_shares_out_of_range(validation: float, test: float) -> None:
    with pytest.raises(TaskError, match="must be above 0 and together below 1"):
        digits(validation=validation, test=test)


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_crop_and_flip_gives_a_window_of_the_padded_image(padding: int) -> None:
    inputs = torch.randn(64, 2, 6, 7)
    changed = random_crop_flip(inputs, torch.Generator().manual_seed(0), padding=padding)
    padded = functional.pad(inputs, (padding,) * 4)
    seen = set()
    for before, after in zip(padded, changed, strict=True):
        windows = {
            (top, left, flip): before[:, top : top + 6, left : left + 7].flip(2)
            if flip
            else before[:, top : top + 6, left : left + 7]
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            for flip in (False, True)
        }
        seen |= {key for key, window in windows.items() if torch.equal(window, after)}
    assert {flip for _, _, flip in seen} == {False, True}
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(2 * padding + 1))


def test_crop_and_flip_repeats_with_its_generator() -> None:
    inputs = torch.randn(8, 1, 8, 8)
    first, second = (random_crop_flip(inputs, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
