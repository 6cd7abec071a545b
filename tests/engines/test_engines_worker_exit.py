"""What is said of a worker that died, from what Ray tells."""

import pytest

from autoprune.engines.worker_exit import how_a_worker_died

DIED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: Trainable\n\tactor_id: d32c\n\tpid: 6052\n"
    "\tip: 127.0.0.1\nThe actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR "
    "Worker exit detail: "
)
CONNECTION = "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1)"


@pytest.mark.parametrize(
    ("told", "noted", "expected"),
    [
        (DIED + CONNECTION, "signal 11, SIGSEGV (net.py:3)", "signal 11, SIGSEGV (net.py:3)"),
        (
            DIED + CONNECTION,
            None,
            "without a trace, as by signal 9, SIGKILL, or a library's exit; its last output is in "
            "logs/worker-*-6052.log",
        ),
        (DIED + "Worker exits with an exit code 3.", None, "Worker exits with an exit code 3."),
        ("The actor died.\nIts node has\x1b[1m died.", None, "Its node has\\x1b[1m died."),
        (
            "2 worker(s) were killed due to the node running low on memory. It was 22.9GB used / 23.54GB limit.\nX",
            None,
            "out of memory: Ray's monitor killed it (22.9GB used / 23.54GB limit on its machine). Fewer "
            "`resources.workers`, or a limit by `resources.memory_per_trial_gib`, help.",
        ),
        ("", None, "cause unknown"),
    ],
)
def test_how_a_worker_died(told: str, noted: str | None, expected: str) -> None:
    assert how_a_worker_died(told, noted) == expected
