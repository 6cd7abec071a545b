"""A lineage is told in full: taking its steps again, one by one, gives the same network."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from autoprune.engines.inline import run_inline
from autoprune.errors import StudyError
from autoprune.formats.saved_model import load_model
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy
from autoprune.study.lineage import lineage_steps
from autoprune.study.records import ancestors
from autoprune.training.evaluation import evaluate
from autoprune.training.loop import Trainer
from autoprune.trial import TrialConfig, TrialResult, config_from_dict
from autoprune.worker import Worker

TREE: dict[str, Any] = {
    "training": {"epochs": [1, 2], "optimizer": [{"name": "sgd"}, {"name": "adamw"}]},
    "search": {"start": "nearest", "trials": 6, "ladder": 4},
}


def retold(step: dict[str, Any], number: int) -> TrialConfig:
    """The configuration that a person would write down from a step, its parent being the step before."""
    names = ("seed", "epochs", "optimizer", "lr_schedule", "batch_size_schedule", "distillation", "pruning")
    return config_from_dict({name: step[name] for name in names} | {"number": number, "parent": number - 1 or None})


def test_the_steps_taken_again_give_the_same_network(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study(TREE, "searched")
    driver = Driver(session.folder, session.space, session.table, session.dense)
    run_inline(driver, Worker(session.folder))
    trials = driver.study.get_trials(deepcopy=False)
    rows = driver.frame().set_index("number")
    deepest = int(rows["lineage"].str.count(">").idxmax())
    steps = lineage_steps(session.folder, session.spec, trials, deepest)
    assert json.loads(json.dumps(steps)) == steps
    dense, *cuts = steps
    assert len(cuts) >= 3

    by_hand, number = [deepest], deepest
    while rows["parent"].notna()[number]:
        number = int(rows["parent"][number])
        by_hand.insert(0, number)
    assert [step["trial"] for step in steps] == [None, *by_hand]
    assert rows["lineage"][deepest] == " > ".join(map(str, by_hand))
    assert cuts[-1]["epochs_lineage"] == sum(step["epochs"] for step in cuts) == rows["epochs_lineage"][deepest]
    for step in cuts:
        row = rows.loc[step["trial"]]
        assert (step["metric"], step["cost"]["flops"]) == (row["metric.accuracy"], row["flops"])
        assert step["kept"] == {name.removeprefix("kept."): row[name] for name in rows if name.startswith("kept.")}
        assert len(step["curve"]) == step["epochs"]

    again = tiny_study(TREE, "again")
    worker = Worker(again.folder)
    for number, step in enumerate(cuts, start=1):
        *_, result = worker.run(retold(step, number))
        assert isinstance(result, TrialResult)
        assert (result.metric, result.loss, result.kept) == (step["metric"], step["loss"], step["kept"])
    models = [
        load_model(folder.model(number), session.task.build_model).state_dict()
        for folder, number in ((session.folder, deepest), (again.folder, len(cuts)))
    ]
    torch.testing.assert_close(models[0], models[1], rtol=0, atol=0)

    torch.manual_seed(dense["seed"])
    model = session.task.build_model()
    told = retold({"pruning": {}, "distillation": {}} | dense, 0)
    trainer = Trainer(
        model,
        session.task,
        optimizer=told.optimizer,
        lr_schedule=told.lr_schedule,
        batch_size_schedule=told.batch_size_schedule,
        epochs=told.epochs,
        seed=told.seed,
        device="cpu",
    )
    for _ in range(told.epochs):
        trainer.run_epoch()
    assert evaluate(model, session.task.data.validation, session.task).loss == pytest.approx(dense["loss"], rel=1e-6)

    spec = session.spec.model_copy(update={"task": session.spec.task.model_copy(update={"weights": "w.pt"})})
    given = lineage_steps(session.folder, spec, trials, deepest)[0]
    assert given == {name: dense[name] for name in ("trial", "metric", "loss", "cost")} | {"weights": "w.pt"}


def test_trials_without_a_lineage(tiny_study: Callable[..., PreparedStudy]) -> None:
    session = tiny_study({}, "none")
    driver = Driver(session.folder, session.space, session.table, session.dense)

    def steps(number: int) -> None:
        lineage_steps(session.folder, session.spec, driver.study.get_trials(deepcopy=False), number)

    with pytest.raises(StudyError, match="there is no trial -1"):
        steps(-1)
    with pytest.raises(StudyError, match="there is no trial 7; the study has trials 0 to 1"):
        steps(7)
    assert driver.suggest() is not None
    driver.fail(0, "RuntimeError: no")
    for number in (0, 1):
        with pytest.raises(StudyError, match=f"trial {number} has not been trained"):
            steps(number)


def test_ancestors() -> None:
    parents = {0: None, 1: 0, 2: None, 3: 1, 4: 3}
    assert ancestors(parents, 0) == [0]
    assert ancestors(parents, 2) == [2]
    assert ancestors(parents, 4) == [0, 1, 3, 4]
