"""What fails in a worker at the first step of training fails before the dense network is trained."""

import sys
from pathlib import Path

import pytest
import torch
from tiny import TINY_TASK, tiny_folder, write_space

from autoprune.engines.inline import run_in_process
from autoprune.errors import TaskError
from autoprune.search.callbacks import SILENT
from autoprune.search.prepare import begin_study
from autoprune.search.run import run_search
from autoprune.search.study_data import check_study_data, keep_study_data
from autoprune.search.validate import read_space, validate_space
from autoprune.study.folder import StudyFolder
from autoprune.worker.first_step import take_first_step, try_first_step

DETACHED = f"""{TINY_TASK}

def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs.detach(), targets)
"""
TRAINS_WRONGLY = TINY_TASK.replace(
    "    def forward(self, x):\n", "    def forward(self, x):\n        assert not self.training, 'no training mode'\n"
)


def begun(root: Path, task: str, loss: str | None = None) -> StudyFolder:
    """A study that has been begun, its dense network not trained."""
    changes = {} if loss is None else {"task": {"loss": loss}}
    checked, folder = validate_space(read_space(write_space(root, changes, task))), tiny_folder(root)
    folder.create()
    keep_study_data(check_study_data(checked, folder), checked, folder, SILENT)
    begin_study(checked, folder)
    return folder


def test_a_task_that_trains_passes_and_nothing_is_changed(tmp_path: Path) -> None:
    folder = begun(tmp_path, TINY_TASK)
    before, files = torch.get_rng_state(), sorted(folder.root.rglob("*"))
    assert try_first_step(folder, "cpu") is None
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(folder.root.rglob("*")) == files


@pytest.mark.parametrize(
    ("task", "loss", "told"),
    [
        (DETACHED, "tiny_task:loss", "RuntimeError: element 0 of tensors does not require grad"),
        (TRAINS_WRONGLY, None, "AssertionError: no training mode (tiny_task.py:"),
    ],
    ids=["detached", "training mode"],
)
def test_what_only_training_shows_ends_the_search_before_it(
    tmp_path: Path, task: str, loss: str | None, told: str
) -> None:
    found = try_first_step(begun(tmp_path, task, loss), "cpu")
    assert found is not None
    assert told in found
    with pytest.raises(TaskError, match=r"the first step of training failed: .* nothing has been trained yet"):
        run_search(tmp_path / "space.yaml", tmp_path / "results", run_in_process)
    assert not tiny_folder(tmp_path).epochs.exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "raise FileNotFoundError('/mnt/images is not mounted')",
            "task.data: data raised FileNotFoundError: /mnt/images",
        ),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("return {**parts, 'test': parts['train']}", "task.data: in a worker process the test split has 200 examples"),
    ],
    ids=["raises", "ends", "other data"],
)
def test_what_another_process_lacks_is_told(tmp_path: Path, line: str, told: str) -> None:
    folder = begun(tmp_path, TINY_TASK)
    elsewhere = TINY_TASK.replace("def data():", "def parts_of_it():") + (
        f"\n\ndef data():\n    parts = parts_of_it()\n    {line}\n"
    )
    (tmp_path / "tiny_task.py").write_text(elsewhere)
    sys.modules.pop("tiny_task")
    found = try_first_step(folder, "cpu")
    assert found is not None
    assert told in found


def test_the_test_split_is_not_read(tmp_path: Path) -> None:
    checked = validate_space(read_space(write_space(tmp_path, {})))
    take_first_step(checked.spec, checked.task, "cpu")
    assert checked.task.data.train.n_read > 0  # type: ignore[attr-defined]
    assert checked.task.data.test.n_read == 0  # type: ignore[attr-defined]
