"""How much each channel of a group matters, by any of the criteria: a file for each kind of them."""

from autoprune.pruning.channels.importance._base import Calibration
from autoprune.pruning.channels.importance.scores import SCORERS, channel_scores, inputs_on

__all__ = ["SCORERS", "Calibration", "channel_scores", "inputs_on"]
