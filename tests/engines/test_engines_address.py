"""Joining a running Ray of two nodes, and addresses that can't be joined."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from engines_cli import Search, searching

from autoprune.engines import load_engine
from autoprune.errors import StudyError

CHANGES = {"search": {"trials": 4}, "resources": {"workers": "auto"}}


@pytest.mark.parametrize(
    ("engine", "address", "rule"),
    [("inline", "auto", "goes with --engine ray"), ("ray", "ray://head:10001", "must be auto or HOST:PORT")],
)
def test_what_can_not_be_joined_is_refused(engine: str, address: str, rule: str) -> None:
    with pytest.raises(StudyError, match=rule):
        load_engine(engine, address)


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
