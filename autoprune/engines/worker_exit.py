"""How a worker process died, from its own note and from what Ray says."""

import re

from autoprune.errors import printable


def how_a_worker_died(told: str, noted: str | None) -> str:
    """Say in one line how a worker process died.

    Args:
        told: What Ray says. Of a signal or ``os._exit`` it knows only that a connection has ended.
        noted: What the process has noted, as :func:`autoprune.study.exit_note.exit_cause` gives it.
    """
    if noted is not None:
        return noted
    if "running low on memory" in told:
        used = re.search(r"[\d.]+ ?GB used / [\d.]+ ?GB limit", told)
        return (
            f"out of memory: Ray's monitor killed it{f' ({used[0]} on its machine)' if used else ''}. Fewer "
            "`resources.workers`, or a limit by `resources.memory_per_trial_gib`, help."
        )
    if "End of file" in told:
        pid = re.search(r"\bpid: (\d+)", told)
        log = f"worker-*-{pid[1]}.log" if pid else "worker-*.log"
        return f"without a trace, as by signal 9, SIGKILL, or a library's exit; its last output is in logs/{log}"
    detail = re.split(r"Worker exit detail: |\n", told.strip())[-1]
    return printable(" ".join(detail.split())) or "cause unknown"
