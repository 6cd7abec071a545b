"""What a study searches over: SearchConfig + PruningPlan -> suggest(optuna trial) -> TrialConfig."""

from autoprune.search.space.location import RATIO, Location, locate
from autoprune.search.space.space import SearchSpace

__all__ = ["RATIO", "Location", "SearchSpace", "locate"]
