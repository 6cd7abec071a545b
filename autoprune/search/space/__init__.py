"""What a study searches over: SearchConfig + PruningPlan -> suggest(optuna trial) -> TrialConfig."""

from autoprune.search.space.location import Location, locate
from autoprune.search.space.space import SearchSpace

__all__ = ["Location", "SearchSpace", "locate"]
