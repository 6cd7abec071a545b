"""The methods compared, by name: each spends a lab's epochs as it sees fit."""

from benchmarks.search_quality.methods._base import Method, MethodUnavailableError
from benchmarks.search_quality.methods.ablations import ABLATIONS
from benchmarks.search_quality.methods.distilled import DISTILLED
from benchmarks.search_quality.methods.fastnas import FASTNAS
from benchmarks.search_quality.methods.global_ranking import GLOBAL_RANKINGS
from benchmarks.search_quality.methods.ladders import LADDERS
from benchmarks.search_quality.methods.reconstructed import RECONSTRUCTED
from benchmarks.search_quality.methods.search import SEARCHES

METHODS: dict[str, Method] = {
    **SEARCHES,
    **LADDERS,
    **GLOBAL_RANKINGS,
    **FASTNAS,
    **DISTILLED,
    **RECONSTRUCTED,
    **ABLATIONS,
}

__all__ = ["METHODS", "Method", "MethodUnavailableError"]
