"""scikit-learn's handwritten digits: 1,797 images of 8x8, ten classes, part of the package itself."""

import numpy as np

from autoprune.errors import TaskError
from autoprune.tasks.splits import TensorSplit
from autoprune.tasks.task import Data


def digits(validation: float = 0.2, test: float = 0.2, seed: int = 0) -> Data:
    """Load the digits, in splits that hold the classes in equal shares.

    Args:
        validation: Share of all examples held out to choose by, in (0, 1).
        test: Share of all examples held out to report on, in (0, 1).
        seed: Seed of the splits.

    Returns:
        Inputs of shape ``(n, 1, 8, 8)``, float32, of mean 0 and standard deviation 1 over the training split; targets 0
        to 9.

    Raises:
        TaskError: If a share is out of range or nothing is left to train on.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if not (validation > 0 and test > 0 and validation + test < 1):
        raise TaskError(
            f"digits: validation and test must be above 0 and together below 1, got validation={validation} and "
            f"test={test}."
        )
    images, targets = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.float32)
    rest, test_images, rest_targets, test_targets = train_test_split(
        images, targets, test_size=test, random_state=seed, stratify=targets
    )
    train_images, held_images, train_targets, held_targets = train_test_split(
        rest, rest_targets, test_size=validation / (1 - test), random_state=seed, stratify=rest_targets
    )
    mean, std = train_images.mean(), train_images.std()
    return Data(
        train=TensorSplit((train_images - mean) / std, train_targets),
        validation=TensorSplit((held_images - mean) / std, held_targets),
        test=TensorSplit((test_images - mean) / std, test_targets),
    )
