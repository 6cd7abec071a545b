"""The project's own search, with the samplers and the starts that a space file can name."""

from benchmarks.search_quality.lab import Lab
from benchmarks.search_quality.methods._base import Method


def _search(sampler: str, start: str) -> Method:
    return Method(Lab.search, {"search": {"sampler": sampler, "start": start}})


SEARCHES = {
    f"{sampler}_{start}": _search(sampler, start)
    for start in ("dense", "nearest")
    for sampler in ("tpe", "nsga2", "random")
}

SEARCHES |= {f"cost_aware_{start}": _search("cost_aware", start) for start in ("tree", "nearest", "dense")}
