"""The sampler that knows what a candidate costs, learns only its score, and lets it start from a trained network."""

from autoprune.search.samplers.cost_aware.sampler import CostAwareSampler, SearchKnowledge, Start
from autoprune.search.samplers.cost_aware.settings import CostAwareSettings

__all__ = ["CostAwareSampler", "CostAwareSettings", "SearchKnowledge", "Start"]
