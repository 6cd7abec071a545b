"""Seeds that follow from the study's seed, so that any trial can be repeated from its record."""

import zlib

import numpy as np


def derive_seed(study_seed: int, number: int, purpose: str) -> int:
    """A seed in [0, 2**31) for one purpose of one trial, independent of all the others.

    Source:
        NumPy's SeedSequence, https://numpy.org/doc/stable/reference/random/bit_generators/generated/numpy.random.SeedSequence.html
    """
    state = np.random.SeedSequence([study_seed, number, zlib.crc32(purpose.encode())]).generate_state(1)
    return int(state[0] >> 1)
