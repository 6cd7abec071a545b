"""An analysis as plain JSON values and back, so that a plan can be kept with a study."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from autoprune.pruning.graph.analysis import Analysis
from autoprune.pruning.graph.grouping import DependencyGroup
from autoprune.pruning.graph.products import Product, Run
from autoprune.pruning.graph.sizes import CountedSize
from autoprune.pruning.graph.unprunable import UnprunableChannels
from autoprune.pruning.graph.values import Indices


def to_plain(analysis: Analysis) -> dict[str, Any]:
    """Turn an analysis into values that JSON knows; runs of indices are kept as ``[first, step, how many]``."""
    return {
        "groups": [
            {
                "name": group.name,
                "width": group.width,
                "layers": list(group.layers),
                "exact": group.exact,
                "multiple": group.multiple,
                "members": [
                    [name, dim, (name, dim) in group.consumers, [_packed(column) for column in indices.T]]
                    for (name, dim), indices in group.members.items()
                ],
            }
            for group in analysis.groups
        ],
        "blocked": [asdict(channels) for channels in analysis.unprunable],
        "sizes": [
            {
                "module": size.module,
                "size": size.size,
                "kind": size.kind,
                "channels": [[name, _packed(indices)] for name, indices in size.channels],
                "holders": [list(holder) for holder in size.holders],
            }
            for size in analysis.sizes
        ],
        "products": [[product.module, _plain_runs(product.runs)] for product in analysis.products],
        "positions": {name: [_plain_runs(runs) for runs in found] for name, found in analysis.positions.items()},
        "shapes": {name: list(shape) for name, shape in analysis.shapes.items()},
        "same": dict(analysis.same),
        "choices": [[*key, taken] for key, taken in analysis.choices.items()],
    }


def from_plain(record: Mapping[str, Any]) -> Analysis:
    """Rebuild an analysis from ``to_plain``'s values."""
    return Analysis(
        groups=tuple(_group(group) for group in record["groups"]),
        unprunable=tuple(UnprunableChannels(**channels) for channels in record["blocked"]),
        sizes=tuple(
            CountedSize(
                size["module"],
                size["size"],
                size["kind"],
                tuple((name, _unpacked(indices)) for name, indices in size["channels"]),
                tuple((module, attribute) for module, attribute in size["holders"]),
            )
            for size in record["sizes"]
        ),
        shapes={name: tuple(shape) for name, shape in record["shapes"].items()},
        same=dict(record["same"]),
        products=tuple(Product(module, _runs(runs)) for module, runs in record["products"]),
        positions={name: tuple(map(_runs, found)) for name, found in record.get("positions", {}).items()},
        choices={(owner, ordinal, n): taken for owner, ordinal, n, taken in record["choices"]},
    )


def _group(record: Mapping[str, Any]) -> DependencyGroup:
    members = {
        (name, dim): np.stack([_unpacked(column) for column in columns], axis=1)
        for name, dim, _, columns in record["members"]
    }
    consumers = frozenset((name, dim) for name, dim, consumes, _ in record["members"] if consumes)
    layers = tuple(record["layers"])
    return DependencyGroup(
        record["name"],
        record["width"],
        layers,
        multiple=record["multiple"],
        exact=record["exact"],
        members=members,
        consumers=consumers,
    )


def _plain_runs(runs: Sequence[Run]) -> list[Any]:
    return [[run.size, list(run.losses)] for run in runs]


def _runs(record: Sequence[Any]) -> tuple[Run, ...]:
    return tuple(Run(size, tuple((group, n) for group, n in losses)) for size, losses in record)


def _packed(indices: Indices) -> list[int] | dict[str, list[int]]:
    steps = np.diff(indices)
    if len(indices) > 2 and (steps == steps[0]).all():
        return {"run": [int(indices[0]), int(steps[0]), len(indices)]}
    plain: list[int] = indices.tolist()
    return plain


def _unpacked(packed: list[int] | dict[str, list[int]]) -> Indices:
    if isinstance(packed, dict):
        first, step, n = packed["run"]
        return first + step * np.arange(n)
    return np.array(packed, dtype=np.int64)
