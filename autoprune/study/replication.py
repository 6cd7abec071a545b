"""What a front's points hold over seeds: means, deviations, and which of them are dominated now."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from autoprune.config.metric import MetricSpec
from autoprune.study.folder import StudyFolder
from autoprune.study.pareto import non_dominated_mask
from autoprune.trial import Replicate, TrialResult, result_from_dict

WAYS = ("lineage", "from_dense")
"""How a point was trained again, as the columns have it: ``lineage.metric.<name>`` and so on."""

HOLDS = "holds"
"""Column that is false for a point that another one dominates by their means."""


def replicate_results(folder: StudyFolder) -> dict[Replicate, TrialResult]:
    """The replicates of a study that have ended, whatever became of them."""
    paths = sorted(folder.certification.glob("[0-9]*.json"))
    results = (result_from_dict(folder.read_json(path)["result"]) for path in paths)
    return {result.run: result for result in results if isinstance(result.run, Replicate)}


def with_replication(
    folder: StudyFolder, front: pd.DataFrame, objectives: Sequence[str], metric: MetricSpec
) -> pd.DataFrame:
    """The front with a certification's columns, if there was one.

    For ``lineage`` and ``from_dense`` each: ``.runs`` that finished, mean ``.metric.<name>`` on validation and its
    sample standard deviation ``.metric.<name>_std``, and the same of ``.metric.<name>_test``; missing where nothing
    finished, and a deviation also where only one did. ``holds`` is false for a point that another point of the front
    dominates when the mean along the lineage takes the place of each one's metric.

    Args:
        front: Rows of ``trials.parquet``.
    """
    results = replicate_results(folder)
    if not results:
        return front
    rows = []
    for number, parent in zip(front["number"], front["parent"], strict=True):
        summary = _summary(results, int(number), metric.column, starts_at_dense=bool(pd.isna(parent)))
        rows.append({f"{way}.{name}": value for way, found in summary.items() for name, value in found.items()})
    columns = [f"{way}.{name}" for way in WAYS for name in ("runs", *_moment_columns(metric))]
    added = pd.DataFrame(rows, index=front.index, columns=columns)
    added = added.astype({name: "int64" if name.endswith(".runs") else "float64" for name in columns})
    means = added[f"lineage.{metric.column}"]
    values = [means if name == metric.name else front[name] for name in objectives]
    mask = non_dominated_mask(
        np.column_stack([each.to_numpy("float64", na_value=np.nan) for each in values]), metric.directions(objectives)
    )
    holds = pd.Series(mask, index=front.index, dtype="boolean").where(means.notna())
    return pd.concat([front, added, holds.rename(HOLDS)], axis=1)


def replication_metrics(
    folder: StudyFolder, number: int, metric: str, *, starts_at_dense: bool
) -> Mapping[str, Mapping[str, float]]:
    """What one point holds over seeds, for ``lineage`` and ``from_dense``; empty if it was not certified.

    Args:
        metric: What to call the metric.
    """
    summary = _summary(replicate_results(folder), number, metric, starts_at_dense=starts_at_dense)
    return {way: found for way, found in summary.items() if found["runs"]}


def _summary(
    results: Mapping[Replicate, TrialResult], number: int, metric: str, *, starts_at_dense: bool
) -> dict[str, dict[str, float]]:
    """Way -> column -> value; a trial that starts at dense has one way only, which is both."""
    found = {}
    for way in WAYS:
        from_dense = way == "from_dense" and not starts_at_dense
        finished = [
            result
            for replicate, result in results.items()
            if replicate.trial == number and replicate.from_dense == from_dense and result.state == "finished"
        ]
        found[way] = {
            "runs": len(finished),
            **dict(_moments(metric, [result.metric for result in finished])),
            **dict(_moments(f"{metric}_test", [result.metric_test for result in finished])),
        }
    return found


def _moments(name: str, values: Sequence[float | None]) -> Iterator[tuple[str, float]]:
    """Mean and sample standard deviation of those that are known; NaN where there are too few."""
    known = [value for value in values if value is not None]
    yield name, float(np.mean(known)) if known else float("nan")
    yield f"{name}_std", float(np.std(known, ddof=1)) if len(known) > 1 else float("nan")


def _moment_columns(metric: MetricSpec) -> list[str]:
    return [f"{column}{ending}" for column in (metric.column, metric.test_column) for ending in ("", "_std")]
