"""A study that begins with another one's trials and networks."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
from changes import OnChange
from optuna.trial import TrialState
from safetensors.torch import load_file, save_file
from test_search_tree import TREE
from tiny import TINY_TASK, copy_study, merged, write_space

from autoprune.cli.status import status
from autoprune.cost import measure
from autoprune.engines import load_engine
from autoprune.errors import AutopruneError
from autoprune.export import export_trial
from autoprune.formats.saved_model import load_model
from autoprune.formats.stored_outputs import SAME
from autoprune.search.driver import Driver
from autoprune.search.run import Outcome, run_search
from autoprune.study.folder import StudyFolder
from autoprune.study.reader import StudyReader
from autoprune.study.records import CONSTRAINT, ORIGIN, SOURCE, config_of, result_of
from autoprune.study.seeds import derive_seed
from autoprune.training.evaluation import evaluate

pytestmark = pytest.mark.xdist_group("search_warm_start")  # its fixtures take long: one process makes them

Warm = Callable[..., Outcome]


class Death(BaseException):
    """Stands for SIGKILL: nothing in the process catches it."""


def search(space: Path, n_trials: int, **told: Any) -> Outcome:
    return run_search(space, space.parent / "results", load_engine("inline"), n_trials, **told)


def brief(patch: pytest.MonkeyPatch) -> None:
    measured = measure.measure_latency
    patch.setattr(measure, "measure_latency", lambda *args, **_: measured(*args, min_runs=3, max_seconds=0.0))


@pytest.fixture(scope="module")
def tree(trained_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A tree study of 12 trials; not to be changed."""
    root = tmp_path_factory.mktemp("tree") / "a"
    with pytest.MonkeyPatch.context() as patch:
        brief(patch)
        return search(copy_study(trained_tiny, root, TREE), 12).session.folder


@pytest.fixture(scope="module")
def drawn(trained_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study of 12 trials from the dense network, with all methods, drawn at random; not to be changed."""
    root = tmp_path_factory.mktemp("drawn") / "a"
    with pytest.MonkeyPatch.context() as patch:
        brief(patch)
        return search(
            copy_study(trained_tiny, root, {"training": {"epochs": 1}, "search": {"ladder": 0}}), 12
        ).session.folder


@pytest.fixture
def warm(tmp_path: Path, brief_latency: None) -> Warm:
    """Searches a study that begins with another, made from changes to the tiny space file."""

    def run(other: StudyFolder, changes: dict[str, Any], n_trials: int, name: str = "b", **told: Any) -> Outcome:
        own = {"study": "warm", "search": {"warm_start": os.path.relpath(other.root, tmp_path / name)}}
        task = told.pop("task", TINY_TASK)
        return search(write_space(tmp_path / name, merged(changes, own), task), n_trials, **told)

    return run


def content(folder: StudyFolder) -> dict[str, str]:
    files = (path for path in sorted(folder.root.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def finished(folder: StudyFolder) -> pd.DataFrame:
    trials = pd.read_parquet(folder.trials)
    return trials[trials["state"] == "finished"].reset_index(drop=True)


def told(driver: Driver) -> list[Any]:
    """All that a study knows of its trials, but for times."""
    trials = driver.study.get_trials(deepcopy=False)
    rows = []
    for trial in trials:
        result = result_of(trial)
        assert result is not None
        accuracy, kept = result.metric, dict(result.kept)
        rows.append((trial.state, trial.params, config_of(trial), accuracy, kept, trial.user_attrs.get(SOURCE)))
    return rows


def test_a_tree_goes_on_from_another_studys_networks(warm: Warm, tree: StudyFolder, tmp_path: Path) -> None:
    before = content(tree)
    with tree.lock():  # it may be searched meanwhile
        outcome = warm(tree, TREE, 4)
    lock = str(tree.root / "lock")
    assert {**content(tree), lock: ""} == {**before, lock: ""}
    driver, session = outcome.driver, outcome.session
    folder, there = session.folder, finished(tree)

    # The dense network and its sensitivity are the other study's.
    weights = load_file(folder.dense / "model.safetensors")
    torch.testing.assert_close(weights, load_file(tree.dense / "model.safetensors"), rtol=0, atol=0)
    assert folder.read_json(folder.sensitivity) == tree.read_json(tree.sensitivity)

    # Its trials come first, and count towards nothing.
    assert driver.n_told == 4
    trials = pd.read_parquet(folder.trials)
    taken, own = trials[trials["source"].notna()], trials[trials["source"].isna()]
    assert taken["number"].tolist() == list(range(len(there)))
    assert taken["source"].tolist() == [f"tiny:{number}" for number in there["number"]]
    assert len(own) == 4
    same = ["metric.accuracy", "flops", "size_bytes", "latency_ms", "epochs", "epochs_lineage", "seed", "kept.stem"]
    pd.testing.assert_frame_equal(taken[same].reset_index(drop=True), there[same])
    here = {number: position for position, number in enumerate(there["number"])}
    assert taken["parent"].dropna().tolist() == [here[number] for number in there["parent"].dropna()]

    # The ladder and the first trials need not be run again; an imported network is a parent.
    origins = [trial.user_attrs.get(ORIGIN) for trial in driver.study.get_trials(deepcopy=False)[len(taken) :]]
    assert not any(origin is None or origin.startswith(("rate", "descent")) for origin in origins)
    lineage = trials.set_index("number")["epochs_lineage"]
    children = own[own["parent"].notna() & (own["parent"] < len(taken))]
    assert len(children) > 0
    assert (children["epochs_lineage"] - children["epochs"] == lineage[children["parent"]].to_numpy()).all()

    # The front is Optuna's, the networks are those of the front, and each is what its record says.
    on_front = trials[trials["on_front"]]
    assert set(on_front["number"]) == {trial.number for trial in driver.study.best_trials}
    assert on_front["source"].notna().any()
    assert {int(path.name) for path in folder.checkpoints.iterdir()} == set(on_front["number"])
    for number, accuracy in zip(on_front["number"], on_front["metric.accuracy"], strict=True):
        model = load_model(folder.model(number), session.task.build_model)
        assert evaluate(model, session.task.data.validation, session.task).metric == pytest.approx(accuracy)
    assert pd.read_parquet(folder.front)["metric.accuracy_test"].notna().all()
    first = on_front[on_front["source"].notna()].iloc[0]
    manifest = export_trial(StudyReader(folder.root), str(first["number"]), tmp_path / "out", ["safetensors"])[2]
    assert manifest.source["taken_over_from"]["number"] == int(first["source"].removeprefix("tiny:"))
    assert manifest.source["trial"]["number"] == first["number"]
    assert manifest.compared_with == SAME


def test_status_tells_them_apart(warm: Warm, tree: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder = warm(tree, TREE, 1).session.folder
    status(folder.root)
    printed = capsys.readouterr().out
    assert "warm: 1 of 1 trials have ended" in printed
    assert f"{len(finished(tree))} taken over from " in " ".join(printed.split())


@pytest.mark.slow
def test_cut_off_anywhere_it_ends_as_if_it_had_not_been(
    warm: Warm, tree: StudyFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = warm(tree, TREE, 4, "whole").driver

    add, n_added = optuna.Study.add_trial, 0

    def dies(study: optuna.Study, trial: Any) -> None:
        nonlocal n_added
        n_added += 1
        if n_added == 4:  # its network is there, its row is not
            raise Death
        add(study, trial)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trial", dies)
        with pytest.raises(Death):
            warm(tree, TREE, 4, "cut")

    def press(driver: Driver) -> None:
        if driver.n_told == 2:
            raise KeyboardInterrupt

    other = Path(shutil.copytree(tree.root, tmp_path / "other"))
    assert warm(tree, TREE, 4, "cut", callbacks=[OnChange(press)]).interrupted
    space = (tmp_path / "cut" / "space.yaml").read_text()
    tree.root.rename(tree.root.with_name("moved"))  # all is taken over: the other study is not needed any more
    try:
        assert (tmp_path / "cut" / "space.yaml").read_text() == space
        cut = search(tmp_path / "cut" / "space.yaml", 4).driver
    finally:
        other.rename(tree.root)
    assert told(cut) == told(whole)
    assert cut.front.members.keys() == whole.front.members.keys()


@pytest.mark.parametrize("start", ["tree", "nearest"])
def test_trials_outside_of_the_space_are_data_but_no_points_of_it(warm: Warm, drawn: StudyFolder, start: str) -> None:
    changes = {
        "training": {"epochs": 1, "lr_schedule": {"kind": "cosine", "lr": {"low": 0.03, "high": 0.1, "log": True}}},
        "pruning": [{"method": "neuron", "ratio": {"low": 0.0, "high": 0.5}}, {"method": "weight"}],
        "search": {"sampler": "cost_aware", "sensitivity": False, "ladder": 0, "start": start},
    }
    outcome = warm(drawn, changes, 2)
    folder, driver, there = outcome.session.folder, outcome.driver, finished(drawn)
    n_dimensions = len(outcome.session.space.dimensions())
    allowed = set()
    for trial, (_, row) in zip(driver.study.get_trials(deepcopy=False), there.iterrows(), strict=False):
        config = config_of(trial)
        assert config is not None
        in_depth = len(config.pruning.removed_blocks) == 0
        in_widths = max(row[column] for column in there if column.startswith("param.neuron.ratio")) < 0.55
        in_rates = row["param.lr_schedule.cosine.lr"] >= 0.03
        assert trial.user_attrs[SOURCE]["allowed"] is (in_depth and in_widths)
        if in_depth and in_widths and in_rates:
            assert (trial.state, len(trial.params)) == (TrialState.COMPLETE, n_dimensions)
        else:
            assert (trial.state, trial.params) == (TrialState.PRUNED, {})
        assert ("lr_schedule.cosine.lr" in config.params) is bool(in_rates)
        if in_depth and in_widths:
            allowed.add(trial.number)
    assert 0 < len(allowed) < len(there)
    assert {number for number in driver.front.members if number < len(there)} <= allowed
    assert all(folder.checkpoint_store.has_model(number) for number in driver.front.members)


def test_a_ceiling_keeps_networks_off_the_front_but_not_from_being_parents(warm: Warm, tree: StudyFolder) -> None:
    there = finished(tree)
    ceiling = int(there["flops"][there["on_front"]].max()) - 1
    outcome = warm(tree, merged(TREE, {"constraints": {"flops": ceiling}}), 2)
    driver, folder = outcome.driver, outcome.session.folder
    trials = driver.frame()
    over = trials["flops"] > ceiling
    assert over.any()
    assert not trials["on_front"][over].any()
    assert trials["source"][over].notna().all()
    assert any(folder.checkpoint_store.has_model(number) for number in trials["number"][over])
    rows = driver.study.get_trials(deepcopy=False)
    taken = [trial for trial in rows if SOURCE in trial.user_attrs]
    assert [trial.constraints[CONSTRAINT] > 0 for trial in taken] == over[: len(taken)].tolist()


def test_latencies_of_another_machine(warm: Warm, tree: StudyFolder, tmp_path: Path) -> None:
    other = StudyFolder(Path(shutil.copytree(tree.root, tmp_path / "other")))
    reference = other.read_json(other.reference)
    reference["latency"]["device"] = "another processor"
    other.write_json(other.reference, reference)
    there = finished(other)

    left_out = warm(other, TREE, 1, "flops").driver.frame()
    assert left_out["latency_ms"][: len(there)].isna().all()

    objectives = {"objectives": ["accuracy", "latency_ms"], "search": {"sampler": "random", "start": "nearest"}}
    outcome = warm(other, merged(TREE, objectives), 1, "latency")
    measured = outcome.driver.frame()
    assert (measured["latency_ms"][: len(there)] > 0).all()
    assert (measured["latency_ms"][: len(there)] != there["latency_ms"]).any()
    assert measured["flops"][: len(there)].tolist() == there["flops"].tolist()
    assert all(outcome.session.folder.checkpoint_store.has_model(number) for number in outcome.driver.front.members)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_optunas_samplers_learn_from_it(warm: Warm, drawn: StudyFolder) -> None:
    changes = {"training": {"epochs": 1}, "search": {"sampler": "tpe", "ladder": 0}}
    driver = warm(drawn, changes, 1).driver
    trials = driver.study.get_trials(deepcopy=False)
    theirs = optuna.load_study(study_name="tiny", storage=f"sqlite:///{drawn.database}").get_trials()
    assert [trial.params for trial in trials[:-1]] == [trial.params for trial in theirs]
    assert [trial.values for trial in trials[:-1]] == [trial.values for trial in theirs]

    def suggested(known: list[optuna.trial.FrozenTrial]) -> Any:
        """What Optuna's TPE says after these trials, put in by hand."""
        seed = derive_seed(driver.spec.search.seed, len(theirs), "sampler")
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        study = optuna.create_study(sampler=sampler, directions=["maximize", "minimize"])
        study.add_trials(known)
        return driver.space.suggest(study.ask(), seed=0).params

    assert trials[-1].params == suggested(theirs)
    assert trials[-1].params != suggested([])


def test_a_genetic_samplers_first_generation(warm: Warm, drawn: StudyFolder) -> None:
    driver = warm(drawn, {"training": {"epochs": 1}, "search": {"sampler": "nsga2", "ladder": 0}}, 1).driver
    trials = driver.study.get_trials(deepcopy=False)
    assert [trial.system_attrs["NSGAIISampler:generation"] for trial in trials] == [0] * 13


def test_a_network_that_the_other_study_forgets_meanwhile(
    warm: Warm, tree: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = finished(tree)
    gone = int(there["number"][there["on_front"]].iloc[-1])
    link = os.link

    def forgotten(origin: Path, target: Path) -> None:
        if origin == tree.model(gone) / "architecture.json":
            raise FileNotFoundError(origin)
        link(origin, target)

    monkeypatch.setattr(os, "link", forgotten)
    outcome = warm(tree, TREE, 1)
    here = there["number"].tolist().index(gone)
    assert not outcome.session.folder.checkpoint_store.has_model(here)
    assert here not in outcome.driver.front.members
    assert outcome.driver.frame()["metric.accuracy"][here] == there["metric.accuracy"][here]


def test_networks_are_copied_where_no_links_can_be_made(
    warm: Warm, tree: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(origin: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuses)
    outcome = warm(tree, TREE, 1)
    taken = [number for number in outcome.driver.front.members if number < len(finished(tree))]
    assert taken
    for number in taken:
        load_model(outcome.session.folder.model(number), outcome.session.task.build_model)


SCORE = {"callable": "tiny_task:score", "name": "accuracy", "direction": "maximize"}


def perturbed(dense: Path, target: Path) -> None:
    tensors = load_file(dense / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, target)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"warm_start": "nowhere"}}, r"search.warm_start: there is no folder nowhere"),
        (
            {"search": {"warm_start": "unfinished/dense"}},
            r"search.warm_start: unfinished/dense is not a study: it holds no space.yaml",
        ),
        ({"search": {"warm_start": "results/warm"}}, r"search.warm_start: results/warm is this study itself"),
        ({"search": {"warm_start": "unfinished"}}, r"search.warm_start: no trial of unfinished has finished yet"),
        ({"search": {"warm_start": "untrained"}}, r"search.warm_start: untrained has no trials yet"),
        ({"task": {"model": "tiny_task:other"}}, r"task.model.callable: tiny_task:net -> tiny_task:other"),
        ({"task": {"data": "tiny_task:fewer"}}, r"task.data.callable: tiny_task:data -> tiny_task:fewer"),
        ({"task": {"metric": SCORE}}, r"task.metric.callable: None -> tiny_task:score"),
        ({"task": {"weights": "other.safetensors"}}, r"from other dense weights than other.safetensors\. Set task.w"),
    ],
    ids=["no folder", "no study", "itself", "no trial", "no dense network", "model", "data", "metric", "weights"],
)
def test_what_can_not_be_begun_with(
    tree: StudyFolder, trained_tiny: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    more = "\n\nother, fewer = net, data\n\n\ndef score(outputs, targets):\n    return 0.5\n"
    given = {"study": "warm", "search": {"warm_start": str(tree.root)}}
    space = write_space(tmp_path, merged(given, changes), TINY_TASK + more)
    perturbed(tree.dense, tmp_path / "other.safetensors")
    shutil.copytree(trained_tiny, tmp_path / "unfinished")
    load_study_of(tmp_path / "unfinished")
    shutil.copytree(trained_tiny, tmp_path / "untrained")
    (tmp_path / "untrained" / "plan.json").unlink()
    if "itself" in message:
        (tmp_path / "results" / "warm").mkdir(parents=True)
    before = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    with pytest.raises(AutopruneError, match=rf"space.yaml:\d+: .*{message}") as raised:
        search(space, 1)
    line = int(re.findall(r"space.yaml:(\d+)", str(raised.value))[0])
    assert "warm_start" in space.read_text().splitlines()[line - 1]
    assert {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts} == before


def load_study_of(root: Path) -> None:
    """Give a study that has no trials yet its empty database."""
    optuna.create_study(storage=f"sqlite:///{root}/study.db", study_name="tiny", directions=["maximize", "minimize"])


def test_a_network_of_other_widths_or_other_data_under_the_same_names(
    warm: Warm, tree: StudyFolder, tmp_path: Path
) -> None:
    wider = TINY_TASK.replace("(width, width, 3", "(width, width, 5").replace(
        "padding=1, bias=False)\n        self", "padding=2, bias=False)\n        self"
    )
    with pytest.raises(AutopruneError, match=r"tiny_task:net builds now is not the one that was saved"):
        warm(tree, TREE, 1, "model", task=wider)
    assert not (tmp_path / "model" / "results").exists()

    shifted = TINY_TASK.replace('"validation": (200, 350)', '"validation": (500, 650)')
    with pytest.raises(AutopruneError, match=r"space.yaml:\d+: search.warm_start: .* the validation split has other"):
        warm(tree, TREE, 1, "data", task=shifted)
    assert not (tmp_path / "data/results/warm").exists()

    older = StudyFolder(shutil.copytree(tree.root, tmp_path / "older"))
    older.data.unlink()  # an earlier autoprune took no fingerprints
    with pytest.raises(AutopruneError, match=r"space.yaml:\d+: search.warm_start: the dense network's accuracy is"):
        warm(older, TREE, 1, "accuracy", task=shifted)
    assert not (tmp_path / "accuracy/results/warm/study.db").exists()
