"""A node of the Ray cluster killed in mid-trial: its trials go on from their last epoch on the nodes that are left."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
from engines_cli import searching

from autoprune.training.evaluation import CPU_BATCH

CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)  # kills its processes
print("killed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


@pytest.mark.slow
def test_the_trials_of_a_killed_node_move(trained_tiny: Path, tmp_path: Path) -> None:
    changes = {"search": {"trials": 4, "ladder": 0}, "training": {"epochs": 8}, "resources": {"workers": 2}}
    with (
        subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as cluster,
        searching(tmp_path, trained_tiny, changes, seconds=0.1) as search,
    ):
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        try:
            address = cluster.stdout.readline().strip()
            search.start("ray", "--address", address)
            search.wait_until(lambda search: len(search.amid()) == 2)
            workers = set(search.log.read_text().split()[-8:])
            assert len(workers) == 2, "one on each node"
            cluster.stdin.write("\n")
            cluster.stdin.flush()
            assert cluster.stdout.readline() == "killed\n"
            search.wait_until(lambda _: sum(Path(f"/proc/{pid}").exists() for pid in workers) == 1, seconds=30)
            code, out, err = search.end()
            assert code == 0, out + err
            frame = search.frame()
            assert frame["number"].tolist() == list(range(4))
            assert set(frame["state"]) == {"finished"}
            assert set(frame["epochs"]) == {8}
            calls = [pid for pid in search.log.read_text().split() if pid != str(search.process.pid)]
            evaluated = math.ceil(150 / CPU_BATCH)
            per_epoch = 200 // 50 + evaluated
            whole = 4 * (8 * per_epoch + evaluated)
            assert whole <= len(calls) <= whole + 2 * per_epoch, "only the epochs it was killed in are done again"
        finally:
            cluster.stdin.close()
            cluster.wait(timeout=60)
