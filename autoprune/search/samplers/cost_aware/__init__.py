"""The sampler that knows what a candidate costs, learns only its accuracy, and lets it start from a trained network."""

from autoprune.search.samplers.cost_aware.sampler import CostAwareSampler, SearchKnowledge, Start

__all__ = ["CostAwareSampler", "SearchKnowledge", "Start"]
