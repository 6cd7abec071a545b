"""What goes wrong around the trials: told with its place and the way out, and nothing lost."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from changes import OnChange
from tiny import TINY_TASK, copy_study, write_space

from autoprune.engines.inline import run_in_process
from autoprune.errors import ConfigError, StudyError, TaskError
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.search.run import run_search
from autoprune.study.optuna_storage import load_record
from autoprune.study.records import CONFIG, target_of

RAISING_LOSS = """

def loss(outputs, targets):
    if outputs.requires_grad:
        raise OverflowError("too much")
    return nn.functional.cross_entropy(outputs, targets)
"""


@pytest.mark.parametrize(
    ("condition", "stage"),
    [("True", "first step of training failed"), ("len(targets) == 8", r"dense network failed.*too much.*`dense`")],
)
def test_an_error_of_the_users_code_before_the_trials_names_the_stage(
    tmp_path: Path, condition: str, stage: str
) -> None:
    task = TINY_TASK + RAISING_LOSS.replace("outputs.requires_grad", f"outputs.requires_grad and {condition}")
    space = write_space(tmp_path, {"task": {"loss": "tiny_task:loss"}}, task)
    with pytest.raises(TaskError, match=stage) as told:
        run_search(space, tmp_path / "results", run_in_process)
    assert re.search(r"OverflowError: too much \(tiny_task.py:\d+\)", str(told.value))


def test_a_dense_network_that_diverges_says_so(tmp_path: Path) -> None:
    space = write_space(tmp_path, {"dense": {"lr_schedule": {"kind": "constant", "lr": 1.0e9}}})
    with pytest.raises(TaskError, match=r"dense network failed: epoch 1: .*loss must be finite.*`dense`"):
        run_search(space, tmp_path / "results", run_in_process)


@pytest.mark.parametrize("ending", ["sys.exit(3)", "exit()", "raise GeneratorExit"])
def test_user_code_that_ends_the_process_in_the_dense_stage_is_told(tmp_path: Path, ending: str) -> None:
    task = TINY_TASK + "\n\nimport sys\n" + RAISING_LOSS.replace('raise OverflowError("too much")', ending)
    space = write_space(tmp_path, {"task": {"loss": "tiny_task:loss"}}, task)
    with pytest.raises(TaskError, match=r"(SystemExit|GeneratorExit)(: 3)? ?(\(tiny_task.py:\d+\))?"):
        run_search(space, tmp_path / "results", run_in_process)


@pytest.mark.parametrize("what", ["nan", "inf"])
def test_a_dense_network_whose_metric_is_no_number_is_refused(tmp_path: Path, what: str) -> None:
    task = (
        TINY_TASK + f"\n\ndef metric(outputs, targets):\n    return float('{what}') if len(targets) == 150 else 0.5\n"
    )
    space = write_space(
        tmp_path,
        {"task": {"metric": {"callable": "tiny_task:metric", "name": "accuracy", "direction": "maximize"}}},
        task,
    )
    with pytest.raises(TaskError, match=f"the metric must be finite, got {what} on the validation split after epoch 1"):
        run_search(space, tmp_path / "results", run_in_process)


def test_a_network_that_can_not_be_loaded_again_is_not_blamed_on_blocks(
    tmp_path: Path,
) -> None:
    task = TINY_TASK.replace(
        "    return nn.Sequential(OrderedDict(layers))\n",
        "    import pathlib\n"
        "    if pathlib.Path(__file__).with_name('results').exists():\n"
        "        layers[0] = ('stem', nn.Conv2d(1, 8, 3, padding=1))\n"
        "    return nn.Sequential(OrderedDict(layers))\n",
    )
    assert task != TINY_TASK
    space = write_space(tmp_path, {"dense": {"epochs": 1}, "pruning": [{"method": "weight"}]}, task)
    with pytest.raises(TaskError, match=r"loading the dense network again failed: .*stem") as caught:
        run_search(space, tmp_path / "results", run_in_process)
    assert "layer`" not in str(caught.value)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ("nn.Linear(64, 10)", r"neuron or layer: 1: its output is the network's output.*`autoprune plan` says why"),
        (
            "nn.Linear(64, 12), nn.LayerNorm(12), nn.Linear(12, 10)",
            r"neuron or layer: 1: .* has statistics.*`hidden_sizes: true` under the method neuron",
        ),
    ],
)
def test_a_network_without_anything_to_prune_is_refused_before_it_is_trained(
    tmp_path: Path, layers: str, reason: str
) -> None:
    task = TINY_TASK + f"\n\ndef flat():\n    return nn.Sequential(nn.Flatten(), {layers})\n"
    changes = {"task": {"model": "tiny_task:flat"}, "pruning": [{"method": "neuron"}, {"method": "layer"}]}
    with pytest.raises(ConfigError, match=f"nothing of this network can be pruned by {reason}"):
        run_search(write_space(tmp_path, changes, task), tmp_path / "results", run_in_process)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/a.db", "postgresql://127.0.0.1:1/none"])
def test_a_storage_url_that_leads_nowhere_is_found_first(url: str, tmp_path: Path) -> None:
    space = write_space(tmp_path, {"search": {"storage": url}})
    with pytest.raises(StudyError, match=r"search.storage: '.*' can't be used"):
        run_search(space, tmp_path / "results", run_in_process)
    assert not (tmp_path / "results").exists()


def test_a_results_folder_that_vanishes_is_told_in_one_line(
    trained_tiny: Path, tmp_path: Path, brief_latency: None
) -> None:
    space = copy_study(trained_tiny, tmp_path, {})

    def vanish(driver: Driver) -> None:
        if driver.n_told == 2:
            shutil.rmtree(tmp_path / "results")

    with pytest.raises(StudyError, match=r"can't be written: .*\. Put the folder back, make it"):
        run_search(space, tmp_path / "results", run_in_process, callbacks=[OnChange(vanish)])


def test_the_number_of_trials_asked_for_last_is_kept(tiny_study: Callable[..., PreparedStudy]) -> None:
    def opened(n_trials: int | None) -> Driver:
        session = tiny_study()
        return Driver(session.folder, session.space, session.table, session.dense, n_trials)

    assert opened(None).n_trials == 6
    assert opened(9).n_trials == 9
    assert opened(None).n_trials == 9
    session = tiny_study()
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{session.folder.database}")
    assert target_of(study, 6) == 9
    assert study.metric_names == ["accuracy", "flops"]


def test_a_damaged_database_is_told_in_the_databases_words(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study()
    Driver(session.folder, session.space, session.table, session.dense)
    with session.folder.database.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 40000)
    with pytest.raises(StudyError, match="malformed"):
        load_record(session.folder, None, "tiny", (CONFIG,))
