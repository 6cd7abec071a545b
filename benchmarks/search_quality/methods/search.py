"""The project's own search, with the samplers and the starts that a space file can name."""

from typing import Any

from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import Method


def search(sampler: str, start: str, *, chooses_epochs: bool = False, **changes: Any) -> Method:
    """The search under ``search: {sampler, start, ...}``."""
    return Method(
        Lab.search, {"search": {"sampler": sampler, "start": start, **changes}}, chooses_epochs=chooses_epochs
    )


SEARCHES = {
    f"{sampler}_{start}": search(sampler, start)
    for start in ("dense", "nearest")
    for sampler in ("tpe", "nsga2", "random", "cost_aware")
}

SEARCHES |= {
    "cost_aware_tree": search("cost_aware", "tree", chooses_epochs=True),
    "tpe_nearest_epochs": search("tpe", "nearest", chooses_epochs=True),
}
