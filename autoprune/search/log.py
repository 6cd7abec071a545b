"""What a search logs of itself, by Python's ``logging``: its stages, and the runs that failed."""

import logging
from typing import TYPE_CHECKING

from autoprune.search.callbacks import Callback, Stage
from autoprune.trial import TrialConfig, TrialResult, run_name

if TYPE_CHECKING:
    from autoprune.search.run import Outcome

logger = logging.getLogger(__name__)

LEVELS = {"failed": logging.WARNING, "infeasible": logging.DEBUG, "repeated": logging.DEBUG}
"""State in which a run ended -> level at which it is logged; others are not."""


class SearchLog(Callback):
    """Logs what it hears."""

    def on_stage(self, stage: Stage) -> None:
        logger.info("%s", stage)

    def on_warning(self, message: str) -> None:
        logger.warning("%s", message)

    def on_trial_end(self, config: TrialConfig, result: TrialResult) -> None:
        if result.state in LEVELS:
            logger.log(LEVELS[result.state], "%s %s: %s", run_name(result.run), result.state, result.error)

    def on_end(self, outcome: "Outcome") -> None:
        done = f"{outcome.driver.n_told} of {outcome.driver.n_trials} trials"
        if outcome.test_error is not None:
            logger.warning("the front has no test figures: %s", outcome.test_error)
        if outcome.stopped_because is not None:
            logger.warning("stopped after %s: %s", done, outcome.stopped_because)
        elif not outcome.interrupted and not outcome.driver.status().n_finished:
            logger.warning("ended after %s, none of which finished", done)
        else:
            logger.info("%s after %s", "interrupted" if outcome.interrupted else "ended", done)
