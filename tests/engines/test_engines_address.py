"""Joining a running Ray of two nodes, and addresses that can't be joined."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from engines_cli import Search, searching
from tiny import ONE_THREAD

from autoprune.engines import load_engine
from autoprune.errors import StudyError
from autoprune.search.driver import Driver
from autoprune.search.prepare import PreparedStudy

CHANGES = {"search": {"trials": 4}, "resources": {"workers": "auto"}}


@pytest.mark.parametrize(
    ("engine", "address", "rule"),
    [("inline", "auto", "goes with --engine ray"), ("ray", "ray://head:10001", "must be auto or HOST:PORT")],
)
def test_what_can_not_be_joined_is_refused(engine: str, address: str, rule: str) -> None:
    with pytest.raises(StudyError, match=rule):
        load_engine(engine, address)


def test_a_ray_of_its_own_has_no_custom_resources(tiny_study: Callable[..., PreparedStudy]) -> None:
    from autoprune.engines.ray_tune import run_ray

    session = tiny_study({})
    driver = Driver(session.folder, session.space, session.table, session.dense)
    with pytest.raises(StudyError, match=r"resources.custom: licence must be .* joined by --address"):
        run_ray(driver, session, replace(ONE_THREAD, custom={"licence": 1.0}))


@pytest.fixture
def search(trained_tiny: Path, tmp_path: Path) -> Iterator[Search]:
    with searching(tmp_path / "a", trained_tiny, CHANGES, seconds=0.05) as search:
        yield search


@pytest.mark.slow
def test_trials_run_on_all_nodes_of_a_ray_that_is_joined(search: Search) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        process = search.start("ray", "--address", cluster.address)
        code, out, err = search.end()
        assert (code, err) == (0, ""), out
        workers = set(search.log.read_text().split()) - {str(process.pid)}
        assert len(workers) == 2, "each node has room for one trial"
        assert search.states() == ["COMPLETE"] * 4
        assert list(search.results.glob("autoprune-tune-*")) == []
        assert all(node.remaining_processes_alive() for node in cluster.list_all_nodes()), "the search does not end it"
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_where_no_ray_runs_the_way_out_is_told(search: Search) -> None:
    search.start("ray", "--address", "127.0.0.1:1")
    code, _, err = search.end()
    assert code == 2, err
    assert "--address 127.0.0.1:1: no Ray could be joined there" in err
    assert "ray start" in err


@pytest.mark.slow
def test_a_custom_resource_limits_the_trials(search: Search) -> None:
    from ray.cluster_utils import Cluster

    resources = {"num_cpus": 4, "include_dashboard": False, "resources": {"licence": 1}}
    cluster = Cluster(initialize_head=True, head_node_args=resources)
    try:
        for amount, n_workers in ((0.5, 2), (1, 1)):
            search.log.unlink(missing_ok=True)
            write_resources(search, {"workers": "auto", "custom": {"licence": amount}})
            process = search.start("ray", "--address", cluster.address, "--trials", str(4 * 3 ** (n_workers == 1)))
            code, out, err = search.end()
            assert (code, err) == (0, ""), out
            assert len(set(search.log.read_text().split()) - {str(process.pid)}) == n_workers
        for workers in ("auto", 1):
            write_resources(search, {"workers": workers, "custom": {"licence": 2}})
            search.start("ray", "--address", cluster.address, "--trials", "20")
            code, _, err = search.end()
            assert code == 2, "not waiting for what never comes"
            needs = r"a trial needs CPU \d+, licence 2 on one node, the nodes have CPU 4, licence 1. Start Ray"
            assert re.search(needs, err), err
    finally:
        cluster.shutdown()


def write_resources(search: Search, resources: dict[str, Any]) -> None:
    space = yaml.safe_load(search.space.read_text())
    search.space.write_text(yaml.safe_dump({**space, "resources": resources}))


@pytest.mark.slow
def test_the_room_for_trials_is_what_ray_places() -> None:
    import ray
    from ray.cluster_utils import Cluster
    from ray.util.placement_group import placement_group, remove_placement_group

    from autoprune.engines.ray_tune import rooms

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 16, "num_gpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=3, num_gpus=2)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        for threads, gpus in ((1, 0.25), (1, 0.4), (2, 0.25), (1, 1), (1, 2), (2, 0)):
            places = replace(ONE_THREAD, threads=threads, gpus_per_trial=gpus)
            bundle = {name: amount for name, amount in places.per_trial.items() if amount}
            expected = sum(rooms(places))
            assert expected > 0
            groups = [placement_group([bundle]) for _ in range(expected)]
            ray.get([group.ready() for group in groups], timeout=60)
            one_more = placement_group([bundle])
            assert not one_more.wait(timeout_seconds=1), (threads, gpus)
            for group in (*groups, one_more):
                remove_placement_group(group)
    finally:
        ray.shutdown()
        cluster.shutdown()
