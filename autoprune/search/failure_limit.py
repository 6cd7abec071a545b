"""When a search gives up: too many failures, or too many candidates over a ceiling, in a row."""

from autoprune.trial import TrialResult

MAX_CANDIDATES = 1000
"""Candidates over a ceiling that are drawn in a row before the search gives up."""

MAX_MEASURED = 50
"""The same where the last one had to be made and measured to find out, as for size and latency."""


class FailureLimit:
    """Counts what went wrong in a row.

    Args:
        max_failures: Failed trials in a row that end the search.
    """

    def __init__(self, max_failures: int) -> None:
        self._max_failures = max_failures
        self._failures = self._infeasible = 0

    def after(self, result: TrialResult, *, measured: bool) -> str | None:
        """Why the search gives up after a trial that has ended; ``None`` if it goes on.

        Args:
            measured: Whether a worker had the trial.
        """
        self._failures = self._failures + 1 if result.state == "failed" else 0
        self._infeasible = self._infeasible + 1 if result.state == "infeasible" else 0
        if self._failures >= self._max_failures:
            return f"{self._failures} trials in a row failed, the last one (trial {result.number}): {result.error}"
        if self._infeasible >= (MAX_MEASURED if measured else MAX_CANDIDATES):
            return (
                f"{self._infeasible} candidates in a row were over a ceiling, the last one (trial {result.number}): "
                f"{result.error}. Raise the ceiling, or the ratios' low ends."
            )
        return None
