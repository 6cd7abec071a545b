"""What a study searches over: SearchSpec + PruningPlan -> suggest(optuna trial) -> TrialConfig."""

from autoprune.space.dimension import Dimension
from autoprune.space.location import RATIO, Location, locate
from autoprune.space.space import SearchSpace

__all__ = ["RATIO", "Dimension", "Location", "SearchSpace", "locate"]
