"""Exporting one trial of a study: choose it, load its network, and write it with its record."""

from collections.abc import Sequence
from pathlib import Path

import torch

from autoprune.export.export import EXPORTERS, export_model
from autoprune.export.manifest import Manifest
from autoprune.export.select import select_trial
from autoprune.formats.saved_model import load_model, read_architecture
from autoprune.search.prepare import reopen_study
from autoprune.study.folder import StudyFolder
from autoprune.study.lineage import lineage_steps
from autoprune.study.optuna_storage import load_study
from autoprune.study.replication import replication_metrics
from autoprune.study.tables import known_test_accuracy
from autoprune.trial import TrialResult, result_from_dict

N_EXAMPLES = 8
"""Validation inputs on which every format is compared with the network."""


def export_trial(
    folder: StudyFolder, select: str, out: Path | None = None, formats: Sequence[str] | None = None
) -> tuple[TrialResult, Path, Manifest]:
    """Export the network of the trial that ``select`` names.

    Args:
        select: As :func:`autoprune.export.select_trial` takes it.
        out: Folder to write; ``None`` is ``export-NUMBER`` in the study's folder.
        formats: Names in ``EXPORTERS``; ``None`` is all of them.

    Returns:
        The trial's result, the folder written, and its manifest.

    Raises:
        ExportError: If ``select`` names no trial, or a format does not reproduce its network.
        StudyError: If the study can't be read.
    """
    front, trials = folder.read_frame(folder.front), folder.read_frame(folder.trials)
    session = reopen_study(folder)
    number = select_trial(
        front,
        trials,
        select,
        session.dense,
        session.spec.constraints.accuracy_drop,
        session.spec.objectives,
        kept=_kept(folder, [int(each) for each in trials["number"]], select),
    )
    if not folder.has_copy(number):
        folder.bring(number)
    record = folder.read_json(folder.record(number))
    result = result_from_dict(record["result"])
    spec = session.spec
    history = load_study(folder, spec.search.storage, spec.study).get_trials(deepcopy=False)
    metrics: dict[str, object] = {"accuracy": result.accuracy, "loss": result.loss}
    metrics["accuracy_test"] = known_test_accuracy(folder).get(str(number))
    certified = replication_metrics(folder, number, starts_at_dense=record["config"]["parent"] is None)
    if certified:
        metrics["certification"] = certified
    validation = session.task.data.validation
    target = out or folder.root / f"export-{number}"
    manifest = export_model(
        load_model(folder.model(number), session.task.build_model),
        target,
        example_inputs=validation.batch(torch.arange(min(N_EXAMPLES, len(validation))))[0],
        architecture=read_architecture(folder.model(number)),
        formats=tuple(formats or EXPORTERS),
        metrics=metrics | (result.cost.figures() if result.cost else {}),
        source={
            "study": spec.study,
            "trial": record["config"],
            "removed_blocks": result.removed_blocks,
            "kept": result.kept,
            "epochs": result.epochs,
            "epochs_lineage": result.epochs_lineage,
            "epochs_dense": session.dense.epochs,
            "lineage": lineage_steps(folder, spec, history, number),
            "training": spec.training.model_dump(include={"reference_batch_size", "recalibration_examples"}),
            "dense": session.dense.figures(),
            "taken_over_from": record.get("source"),
            "latency_conditions": session.dense.latency.conditions(),
        },
        base_dir=folder.base_dir,
    )
    return result, target, manifest


def _kept(folder: StudyFolder, numbers: Sequence[int], select: str) -> list[int]:
    """Trials whose networks are kept; those that are not in the folder are asked for only where it matters.

    So what the search has brought there can be exported where ``search.checkpoints`` can't be reached.
    """
    copies = [number for number in numbers if folder.has_copy(number)]
    if select.strip() in map(str, copies) or not select.strip().isdigit():
        return copies
    return [number for number in numbers if folder.has_model(number)]
