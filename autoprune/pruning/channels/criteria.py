"""The importance criteria by name, and which of them need data; importing this loads no torch."""

from autoprune.config.criteria import CRITERIA, NEEDS
from autoprune.errors import PruningError, unknown_name

__all__ = ["CRITERIA", "check_criterion", "needs_data", "needs_loss"]


def needs_data(criterion: str) -> bool:
    """Whether the criterion looks at activations or gradients, so that pruning by it takes calibration batches.

    Raises:
        PruningError: If there is no such criterion.
    """
    check_criterion(criterion)
    return NEEDS[criterion] != "nothing"


def needs_loss(criterion: str) -> bool:
    """Whether the criterion looks at gradients of the loss.

    Raises:
        PruningError: If there is no such criterion.
    """
    check_criterion(criterion)
    return NEEDS[criterion] == "loss"


def check_criterion(criterion: str) -> None:
    """Raise PruningError unless ``criterion`` is a known one."""
    if criterion not in CRITERIA:
        raise PruningError(unknown_name("criterion", criterion, sorted(CRITERIA)))
