"""Exporting one trial of a study: choose it, load its network, and write it with its record."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from autoprune.errors import ExportError
from autoprune.export.export import export_model
from autoprune.export.manifest import Manifest
from autoprune.export.select import select_trial
from autoprune.formats.registry import FORMATS
from autoprune.formats.reload import reference_inputs
from autoprune.formats.saved_model import load_model, read_architecture
from autoprune.formats.stored_outputs import check_stored_outputs
from autoprune.report.ending import nothing_finished
from autoprune.study.reader import StudyReader
from autoprune.tasks.build import build_task
from autoprune.tasks.working_folder import working_in
from autoprune.trial import TrialResult, result_from_dict


def export_trial(
    study: StudyReader, select: str, out: Path | None = None, formats: Sequence[str] | None = None
) -> tuple[TrialResult, Path, Manifest]:
    """Export the network of the trial that ``select`` names.

    Args:
        select: As :func:`autoprune.export.select_trial` takes it.
        out: Folder to write; ``None`` is ``export-NUMBER`` in the study's folder.
        formats: Names in ``autoprune.formats.registry.FORMATS``; ``None`` is all of them.

    Returns:
        The trial's result, the folder written, and its manifest.

    Raises:
        ExportError: If ``select`` names no trial, its network gives other outputs than at the trial's end, or a format
            does not reproduce it.
        StudyError: If the study can't be read.
    """
    config, dense, trials = study.config, study.dense, study.frame()
    metric, front = config.metric, study.front()
    if front.empty:
        raise ExportError(f"{study.root}: nothing to export: {nothing_finished(study.status())}")
    number = select_trial(
        front,
        trials,
        select,
        dense,
        metric,
        config.constraints.metric_drop,
        config.objectives,
        kept=_kept(study, [int(each) for each in trials["number"]], select),
    )
    network = study.network_folder(number)
    record = study.network_record(number)
    result = result_from_dict(record["result"])
    metrics: dict[str, object] = {
        "metric": asdict(metric),
        metric.name: result.metric,
        f"{metric.name}_se": result.metric_se,
        f"{metric.name}_test": study.test_metric(number),
        "loss": result.loss,
    }
    certified = study.over_seeds(number)
    if certified:
        metrics["certification"] = certified
    task = build_task(config.task, study.base_dir)
    target = out or study.root / f"export-{number}"
    with working_in(study.base_dir):
        model, inputs = load_model(network, task.build_model), reference_inputs(task)
        compared_with = check_stored_outputs(record.get("outputs"), model, inputs)
    manifest = export_model(
        model,
        target,
        example_inputs=inputs,
        architecture=read_architecture(network),
        formats=tuple(formats or FORMATS),
        metrics=metrics | (result.cost.figures() if result.cost else {}),
        source={
            "study": config.study,
            "trial": record["config"],
            "removed_blocks": result.removed_blocks,
            "kept": result.kept,
            "epochs": result.epochs,
            "epochs_lineage": result.epochs_lineage,
            "epochs_dense": dense.epochs,
            "lineage": study.lineage(number),
            "training": config.training.model_dump(include={"reference_batch_size", "recalibration_examples"}),
            "dense": dense.figures(metric.name),
            "taken_over_from": record.get("source"),
            "latency_conditions": dense.latency.conditions(),
        },
        compared_with=compared_with,
        base_dir=study.base_dir,
    )
    return result, target, manifest


def _kept(study: StudyReader, numbers: Sequence[int], select: str) -> list[int]:
    """Return the trials whose networks are kept; the place of the checkpoints is asked only where it matters.

    So what the search has fetched to the folder can be exported where ``search.checkpoints`` can't be reached.
    """
    copies = [number for number in numbers if study.has_local_network(number)]
    if select.strip() in map(str, copies) or not select.strip().isdigit():
        return copies
    return [number for number in numbers if study.has_network(number)]
