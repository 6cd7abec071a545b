"""A study whose networks and epoch checkpoints `search.checkpoints` keeps in a remote place: the folder has copies."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from changes import OnChange
from shared_folders import build_once
from tiny import TINY_SPACE, brief_latencies, copy_study, merged, tiny_folder, write_space

from autoprune.config import load_config
from autoprune.engines.inline import run_in_process
from autoprune.errors import ConfigError, StudyError, UnwritableError
from autoprune.export.study import export_trial
from autoprune.formats.saved_model import load_model
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.search.run import Outcome, run_search
from autoprune.study.folder import StudyFolder
from autoprune.study.reader import StudyReader
from autoprune.training.checkpoint import load_checkpoint
from autoprune.trial import EpochReport, TrialConfig, TrialResult, config_from_dict, to_dict
from autoprune.worker import Worker

TREE = {"search": {"sampler": "cost_aware"}, "pruning": [{"method": "neuron"}], "training": {"epochs": 1}}
NEAREST = {
    "search": {"start": "nearest", "ladder": 0, "seed": 1},
    "pruning": [{"method": "neuron", "ratio": [0.0, 0.25, 0.5]}, {"method": "layer", "ratio": [0.0, 0.5]}],
    "training": {"epochs": 1},
}
MEASURED = ["latency_ms", "train_time_s"]
FILES = ["architecture.json", "model.safetensors", "trial.json"]

Make = Callable[..., Path]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "place"


@pytest.fixture
def make(trained_tiny: Path, tmp_path: Path, place: Path, brief_latency: None) -> Make:
    """Writes a tiny study, its dense network trained, whose checkpoints are in ``place``; gives its space file."""

    def made(changes: dict[str, Any] | None = None, name: str = "a", *, here: bool = False) -> Path:
        own = {} if here else {"search": {"checkpoints": place.as_uri()}}
        return copy_study(trained_tiny, tmp_path / name, merged(changes or {}, own))

    return made


@pytest.fixture(scope="session")
def whole(trained_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A tiny study, searched without a break, whose checkpoints are in its folder; not to be changed."""

    def build(root: Path) -> None:
        with brief_latencies():
            search(copy_study(trained_tiny, root, {}))

    return tiny_folder(build_once(tmp_path_factory, "whole", build))


def search(space: Path, n_trials: int | None = None, **told: Any) -> Outcome:
    return run_search(space, space.parent / "results", run_in_process, n_trials, **told)


def kept(place: Path) -> list[str]:
    """Files in the only study of the place, as seen from there."""
    (study,) = place.iterdir()
    return sorted(str(path.relative_to(study)) for path in study.rglob("*") if path.is_file())


def numbers_in(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.iterdir()}


def assert_same_trials(one: StudyFolder, other: StudyFolder) -> None:
    frames = [pd.read_parquet(folder.trials).drop(columns=MEASURED) for folder in (one, other)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)


def assert_loads(session: PreparedStudy, number: int) -> None:
    load_model(session.folder.model(number), session.task.build_model)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "changes", [pytest.param({}, marks=SLOW), TREE, pytest.param(NEAREST, marks=SLOW)], ids=["dense", "tree", "nearest"]
)
def test_a_study_goes_as_if_all_were_in_its_folder(make: Make, place: Path, changes: dict[str, Any]) -> None:
    session = search(make(changes), 8).session
    folder = session.folder
    assert_same_trials(search(make(changes, "here", here=True), 8).session.folder, folder)

    (study,) = place.iterdir()
    assert study.name == f"tiny-{folder.identity()}"
    front = set(pd.read_parquet(folder.front)["number"])
    networks = numbers_in(study / "checkpoints")
    assert networks >= front if changes is NEAREST else networks == front
    assert kept(place) == sorted(f"checkpoints/{number}/{name}" for number in networks for name in FILES)
    for number in front:
        assert_loads(session, number)
        for name in FILES:
            assert (folder.model(number) / name).read_bytes() == (study / f"checkpoints/{number}/{name}").read_bytes()


@pytest.mark.parametrize("changes", [pytest.param(TREE, marks=SLOW), NEAREST], ids=["tree", "nearest"])
def test_it_goes_on_where_the_folder_has_no_copies(make: Make, place: Path, changes: dict[str, Any]) -> None:
    space = make(changes)
    folder = search(space, 4).session.folder
    for n_trials in (6, 8):
        shutil.rmtree(folder.checkpoints)
        session = search(space, n_trials).session
    whole = make(changes, "here", here=True)
    for n_trials in (4, 6, 8):
        here = search(whole, n_trials).session.folder
    assert_same_trials(here, folder)
    parents = pd.read_parquet(folder.trials)["parent"].dropna()
    assert len(parents) > 0
    for number in pd.read_parquet(folder.front)["number"]:
        assert_loads(session, number)


def test_a_certified_front(make: Make, place: Path) -> None:
    space = make({**TREE, "certify": {"seeds": 2}})
    folder = search(space, 6).session.folder
    front = pd.read_parquet(folder.front)
    assert set(front["lineage.runs"]) == set(front["from_dense.runs"]) == {2}
    assert not [name for name in kept(place) if name.startswith("certification")]
    assert {path.suffix for path in folder.certification.iterdir()} == {".json"}


@SLOW
def test_a_certification_goes_on_where_the_folder_has_no_copies(make: Make, place: Path) -> None:
    space = make({**TREE, "certify": {"seeds": 2}, "training": {"epochs": 2}})
    seen: list[int] = []

    def on_replication(certification: Any) -> None:
        if any(name.endswith(".training") for name in kept(place)) and certification.status().n_finished >= 2:
            raise KeyboardInterrupt

    folder = search(space, 5, callbacks=[OnChange(on_replicates=on_replication)]).session.folder
    (amid,) = [name for name in kept(place) if name.endswith(".training")]
    assert amid.startswith("certification/")
    for path in folder.certification.iterdir():
        if path.suffix != ".json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    outcome = search(space, 5, callbacks=[OnChange(on_replicates=lambda each: seen.append(each.status().n_ended))])
    assert outcome.certification is not None
    assert outcome.certification.is_complete
    assert outcome.certification.status().n_failed == 0
    assert not [name for name in kept(place) if name.startswith("certification")]


def test_the_front_is_exported_without_the_place(make: Make, place: Path, tmp_path: Path) -> None:
    folder = search(make(NEAREST), 6).session.folder
    dominated = sorted(set(pd.read_parquet(folder.trials)["number"]) - set(pd.read_parquet(folder.front)["number"]))
    shutil.rmtree(folder.model(dominated[0]))
    export_trial(StudyReader(folder.root), str(dominated[0]), tmp_path / "other", ["safetensors"])
    assert (tmp_path / "other/model.safetensors").exists()
    shutil.rmtree(place)
    place.write_text("")
    for select in ("knee", *pd.read_parquet(folder.front)["number"].astype(str)):
        export_trial(StudyReader(folder.root), select, tmp_path / select, ["safetensors"])
        assert (tmp_path / select / "model.safetensors").exists()


def test_another_study_begins_with_it(make: Make, place: Path, tmp_path: Path) -> None:
    folder = search(make(TREE), 6).session.folder
    shutil.rmtree(folder.checkpoints)
    taken = kept(place)
    changes = merged(
        TREE, {"study": "warm", "search": {"warm_start": str(folder.root), "checkpoints": (tmp_path / "b").as_uri()}}
    )
    outcome = search(write_space(tmp_path / "warm", changes), 2)
    assert outcome.driver.status().n_failed == 0
    front = pd.read_parquet(outcome.session.folder.front)
    assert front["source"].notna().any()
    for number in front["number"]:
        assert_loads(outcome.session, number)
    assert {name.split("/")[1] for name in kept(tmp_path / "b")} == set(front["number"].astype(str))
    assert kept(place) == taken
    assert not folder.checkpoints.exists()


# A trial's training state.


def begun(make: Make) -> tuple[PreparedStudy, TrialConfig]:
    """A study with a trial that has done two of its three epochs, the folder's copies gone."""
    session = search(make({"training": {"epochs": 3}}), 1).session
    (number,) = numbers_in(session.folder.checkpoints)
    record = session.folder.read_json(session.folder.record(number))["config"]
    config = config_from_dict({**record, "number": 7})
    events = Worker(session.folder).run(config)
    assert [next(events).epoch for _ in range(2)] == [1, 2]  # type: ignore[union-attr]
    events.close()  # type: ignore[attr-defined]
    shutil.rmtree(session.folder.checkpoints)
    session.folder.create()
    return session, config


def epochs_of(session: PreparedStudy, config: TrialConfig) -> list[int]:
    *reports, result = Worker(session.folder).run(config)
    assert isinstance(result, TrialResult)
    assert result.state == "finished", result.error
    return [report.epoch for report in reports if isinstance(report, EpochReport)]


def test_a_trial_goes_on_from_the_state_that_is_kept(make: Make) -> None:
    session, config = begun(make)
    assert epochs_of(session, config) == [2, 3]


@pytest.mark.parametrize(
    "damage", ["truncated", "gone", pytest.param("foreign", marks=SLOW), pytest.param("nonsense", marks=SLOW)]
)
def test_a_state_that_is_no_good_makes_the_trial_begin_anew(make: Make, place: Path, damage: str) -> None:
    session, config = begun(make)
    (state,) = place.glob("*/checkpoints/7.training")
    content = state.read_bytes()
    if damage == "truncated":
        state.write_bytes(content[:-1])
    elif damage == "foreign":
        state.rename(state.with_name("8.training"))
        config = config_from_dict({**to_dict(config), "number": 8})
    elif damage == "nonsense":
        state.write_bytes(b"nonsense")
    else:
        state.unlink()
        session.folder.training_checkpoint(7).write_bytes(content)  # a copy counts for nothing
    assert epochs_of(session, config) == [1, 2, 3]
    (state,) = place.glob(f"*/checkpoints/{config.number}.training")
    whole = load_checkpoint(state)
    assert whole is not None
    assert whole["report"]["epoch"] == 3


# What goes wrong.


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///proc/a", r"'file:///proc/a' can't be used: Cannot create directory '/proc/a'.*\. Make it reachable"),
        ("nonsense://a", r"'nonsense://a' can't be used: Unrecognized filesystem type in URI.*\. Mend the URI\."),
        ("file://${NOT_SET}/a", r"the environment variable NOT_SET is not set\. Set it"),
    ],
)
def test_a_place_that_can_not_be_used_is_told_before_anything_is_written(
    tmp_path: Path, uri: str, message: str
) -> None:
    space = write_space(tmp_path, {"search": {"checkpoints": uri}})
    line = 1 + next(i for i, text in enumerate(space.read_text().splitlines()) if "checkpoints:" in text)
    with pytest.raises(StudyError, match=rf"space\.yaml:{line}: search\.checkpoints: {message}"):
        search(space)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("n_changes", [*(pytest.param(number, marks=SLOW) for number in (3, 4, 8)), 7])
def test_a_place_lost_amid_a_search_stops_it_and_no_trial_has_failed(
    make: Make, place: Path, whole: StudyFolder, n_changes: int
) -> None:
    space = make()
    lost = place.with_name("lost")
    seen = 0

    def on_change(driver: Driver) -> None:
        nonlocal seen
        seen += 1
        if seen == n_changes:
            place.rename(lost)
            place.write_text("")

    expected = f"search.checkpoints: '{place.as_uri()}' can't be used: .*the same command goes on"
    with pytest.raises(UnwritableError, match=expected):
        search(space, callbacks=[OnChange(on_change)])
    with pytest.raises(StudyError, match=expected):
        search(space)
    place.unlink()
    lost.rename(place)
    outcome = search(space)
    assert outcome.driver.is_complete
    frame = pd.read_parquet(outcome.session.folder.trials)
    assert set(frame["state"]) == {"finished"}
    assert_same_trials(whole, outcome.session.folder)
    assert {name.split("/")[1] for name in kept(place)} == {str(number) for number in outcome.driver.front.members}


def test_another_place_is_another_study(make: Make, tmp_path: Path) -> None:
    space = make()
    search(space, 1)
    space.write_text(space.read_text().replace("/place", "/elsewhere"))
    with pytest.raises(StudyError, match=r"from a different space file \(search\.checkpoints: file:.*place -> file:"):
        search(space, 2)


def test_studies_of_one_name_do_not_mix(make: Make, place: Path) -> None:
    folders = [search(make(name=name), 2).session.folder for name in ("a", "b")]
    assert {path.name for path in place.iterdir()} == {f"tiny-{folder.identity()}" for folder in folders}
    assert len(list(place.iterdir())) == 2


# The space file.


@pytest.mark.parametrize(
    "uri",
    [
        "s3://KEY:secret@bucket/a",
        "s3://KEY:se/cr@et@bucket/a",
        "s3://${KEY}:${A}secret@bucket/a",
        "s3://bucket/a?secret_key=secret",
        "abfs://box:secret@account.dfs.core.windows.net/a",
        "hf://a/b?token=secret",
    ],
)
def test_a_key_in_the_space_file_is_refused_and_not_shown(tmp_path: Path, uri: str) -> None:
    expected = r"checkpoints must not hold a secret key, .*: write \$\{NAME\} in its place, and set"
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(write_space(tmp_path, {"search": {"checkpoints": uri}}))
    assert "cret" not in str(caught.value).replace("secret key", "")


@pytest.mark.parametrize("uri", ["results/elsewhere", "/some/folder", "KEY:secret@bucket"])
def test_what_is_no_uri(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ConfigError, match=r"search\.checkpoints must be a URI such as s3://bucket/folder or file:///"):
        load_config(write_space(tmp_path, {"search": {"checkpoints": uri}}))


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a?region=b", "s3://${KEY}:${SECRET}@bucket/a", "hdfs://me@host:8020/a", "${PLACE}/a", None]
)
def test_uris_without_a_key(tmp_path: Path, uri: str | None) -> None:
    assert "checkpoints" not in TINY_SPACE["search"]
    assert load_config(write_space(tmp_path, {"search": {"checkpoints": uri}})).search.checkpoints == uri
