"""What a network costs: counted, measured, and known in advance for any candidate."""

from autoprune.cost.flops import count_macs
from autoprune.cost.latency import LATENCY_S, measure_latency
from autoprune.cost.measure import measure_cost
from autoprune.cost.table import CostTable, NetworkCost, NetworkCosts, build_table

__all__ = [
    "LATENCY_S",
    "CostTable",
    "NetworkCost",
    "NetworkCosts",
    "build_table",
    "count_macs",
    "measure_cost",
    "measure_latency",
]
