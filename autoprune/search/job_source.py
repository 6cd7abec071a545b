"""What an engine asks for work and tells of it: the driver with trials, a certification with replicates."""

from contextlib import AbstractContextManager
from typing import Protocol

from autoprune.config import SearchConfig
from autoprune.trial import EpochReport, RunId, TrialConfig, TrialResult


class JobSource(Protocol):
    """Gives out runs and takes what became of them; what they are for is its own affair."""

    spec: SearchConfig

    def suggest(self) -> TrialConfig | None:
        """The next run, or ``None`` if there is none to start now: none at all if nothing else runs either."""

    def report(self, report: EpochReport) -> bool:
        """Take note of a running run's last epoch; whether it is to go on."""

    def end_early(self, run: RunId) -> None:
        """Take note that a run was ended after its last reported epoch, as :meth:`report` asked."""

    def complete(self, result: TrialResult) -> None:
        """Take a run's result."""

    def fail(self, run: RunId, error: str) -> None:
        """Take note that a run's worker ended without a result."""

    def stop(self, reason: str) -> None:
        """Give out no more, for a reason that is no run's fault."""

    def release(self, run: RunId) -> None:
        """Put a run back, to go on from its last epoch next time."""

    def interrupt(self) -> None:
        """Put all that runs back."""

    def interruptible(self) -> AbstractContextManager[None]:
        """A context in which a signal raises KeyboardInterrupt, but never in the middle of a change."""

    def hold_signals(self) -> None:
        """Take Ctrl-C, SIGTERM and SIGUSR1 over again, after a library has put its own handlers in place."""
