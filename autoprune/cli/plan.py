"""`autoprune plan`: what of a network can be pruned, and what a search would look over."""

from pathlib import Path
from typing import Annotated

import typer


def plan(
    space: Annotated[Path, typer.Argument(help="The space file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what can be pruned, what can't and why, the dense cost and the search dimensions; trains nothing."""
    import json

    import torch
    from rich.console import Console

    from autoprune.cost import measure_cost
    from autoprune.report.plan import plan_tables
    from autoprune.search.session import check_space_file, dense_costs, rank_plan, saved_size
    from autoprune.space import SearchSpace

    checked = check_space_file(space)
    spec, task, model, table = checked.spec, checked.task, checked.model, checked.table
    device = torch.device("cpu")
    trained = spec.task.weights is not None
    found = rank_plan(spec, task, checked.plan, model, device) if trained else checked.plan
    cost = dense_costs(measure_cost(model, task.example_inputs(), saved_size(model, task, spec), device, latency=True))
    layer = spec.method("layer")
    importance = layer.importance if trained and layer is not None else ""
    dimensions = SearchSpace(spec, found).dimensions()
    if as_json:
        domains = {d.name: d.domain if isinstance(d.domain, list) else d.domain.model_dump() for d in dimensions}
        print(json.dumps({"plan": found.to_dict(), "dense": cost, "dimensions": domains}, indent=1))
        return
    console = Console(highlight=False)
    for part in plan_tables(found, table, cost, dimensions, importance=importance):
        console.print(part)
        console.print()
