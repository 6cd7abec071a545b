"""A trial's figures are those of the file that it leaves."""

from collections.abc import Callable

import pytest
import torch
from tiny import TINY_TASK
from worker_trials import NEURON, finished, gradually, run, trial

from autoprune.formats.reload import reference_inputs
from autoprune.formats.stored_outputs import SAME, check_stored_outputs
from autoprune.training.evaluation import evaluate
from autoprune.worker import Worker

LATE = """
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.gain, self.n_steps = 1.0, 0
"""
LATE_FORWARD = """
    def forward(self, x):
        self.n_steps += self.training
        if self.training and self.n_steps > 10:  # such as after a warm-up
            self.gain = 3.0
        return torch.relu(x + self.gain * self.bn2("""


def late(task: str) -> str:
    changed = task.replace("\n        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)\n", LATE)
    return changed.replace("\n    def forward(self, x):\n        return torch.relu(x + self.bn2(", LATE_FORWARD)


def test_a_trial_whose_file_is_not_its_network_has_failed(make_worker: Callable[..., Worker]) -> None:
    worker = make_worker({"pruning": [{"method": "neuron", "ratio": 0.5}]}, task=late(TINY_TASK))
    result = run(worker, trial(NEURON))
    assert result.state == "failed"
    assert result.metric is None
    assert result.error is not None
    assert "its file lacks attribute 'gain' of module 'block1' (Block), attribute 'gain' of module 'block2'" in (
        result.error.replace("attribute 'n_steps' of module 'block1' (Block), ", "")
    )
    assert "register_buffer" in result.error


@pytest.mark.parametrize("settings", [{}, {"precision": "bf16", "channels_last": True}])
def test_the_figures_are_those_of_the_loaded_file(
    make_worker: Callable[..., Worker], settings: dict[str, object]
) -> None:
    worker = make_worker({"training": settings})
    result, model = finished(worker, trial(gradually(NEURON), with_test=True))
    for split, accuracy in (
        (worker.task.data.validation, result.metric),
        (worker.task.data.test, result.metric_test),
    ):
        assert evaluate(model, split, worker.task, precision=worker.precision).metric == accuracy
    stored = worker.folder.read_json(worker.folder.record(0))["outputs"]
    assert check_stored_outputs(stored, model, reference_inputs(worker.task)) == SAME
    assert torch.equal(worker.reference_inputs, reference_inputs(worker.task))
