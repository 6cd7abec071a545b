"""An export of a trial is what its trial ended with, or none."""

import json
import shutil
from pathlib import Path

import pytest

from autoprune.errors import ExportError
from autoprune.export import export_trial
from autoprune.formats.stored_outputs import SAME
from autoprune.study.reader import StudyReader


@pytest.fixture
def study(finished_tiny: Path, tmp_path: Path) -> StudyReader:
    """A finished study, with the user's module beside it, to be changed."""
    root = tmp_path / "copy"
    shutil.copytree(finished_tiny, root)
    return StudyReader(root / "results" / "tiny")


def front_number(study: StudyReader) -> int:
    return int(study.front()["number"].iloc[0])


def test_an_export_is_compared_with_the_trials_own_outputs(study: StudyReader) -> None:
    _, folder, manifest = export_trial(study, "knee", formats=["safetensors"])
    assert manifest.compared_with == SAME
    assert json.loads((folder / "manifest.json").read_text())["compared_with"] == SAME


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return torch.relu(x + ", "return torch.relu(1.01 * x + "),
        ('("pool", nn.MaxPool2d(2))', '("pool", nn.AvgPool2d(2))'),
    ],
)
def test_code_that_has_changed_since_the_trial_is_no_export(study: StudyReader, before: str, after: str) -> None:
    module = study.base_dir / "tiny_task.py"
    assert before in module.read_text()
    module.write_text(module.read_text().replace(before, after))
    number = front_number(study)
    with pytest.raises(ExportError, match="gives other outputs than at the end of its trial"):
        export_trial(study, str(number), formats=["safetensors"])
    assert not (study.root / f"export-{number}").exists()


def test_a_trial_without_stored_outputs_is_exported_and_it_is_said(study: StudyReader) -> None:
    number = front_number(study)
    path = study.root / "checkpoints" / str(number) / "trial.json"
    record = json.loads(path.read_text())
    del record["outputs"]
    path.write_text(json.dumps(record))
    _, _, manifest = export_trial(study, str(number), formats=["safetensors"])
    assert manifest.compared_with is not None
    assert manifest.compared_with.endswith("the trial stored no outputs")
