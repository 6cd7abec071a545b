"""What to say of trials that did not finish: one sentence for each way that a study ends."""

from collections import defaultdict

from autoprune.study.status import StudyStatus

STATES = {"failed": "failed", "infeasible": "over a ceiling", "stopped": "stopped early"}
"""State in which a trial ended without a place on the front -> how a sentence puts it."""

MAX_NAMED = 10
"""Trials of one cause that are listed by number."""


def nothing_finished(status: StudyStatus) -> str:
    """Say that no trial has finished, what became of them, and why the first one did not."""
    counts = [f"{status.counts[state]} {told}" for state, told in STATES.items() if status.counts[state]]
    told = f"no trial has finished: {', '.join(counts)}." if counts else "no trial has finished yet."
    if status.first_cause is None:
        return told
    number, cause = status.first_cause
    return f"{told} The first, trial {number}: {_sentence(cause)}"


def failed_trials(status: StudyStatus) -> str | None:
    """Say how many trials failed, and why the first one did; ``None`` if none did."""
    if not status.failures:
        return None
    number = min(status.failures)
    told = f"{len(status.failures)} of {status.n_ended} trials failed; the first, trial {number}: "
    return told + _sentence(status.failures[number])


def certification_failures(status: StudyStatus) -> str | None:
    """Say how many runs of the certification failed, and why the first one did; ``None`` if none did."""
    n_failed = len(status.failed_repeats)
    for path, cause in status.failed_repeats.items():
        n_runs = status.n_certified + n_failed
        return f"{n_failed} of {n_runs} certification runs failed; the first, {path}: {_sentence(cause)}"
    return None


def failures_by_cause(status: StudyStatus) -> list[tuple[str, str]]:
    """List what failed, one row a cause: ``("trials 1, 3", "ValueError: no (user.py:3)")``, first trials first."""
    numbers = defaultdict(list)
    for number, cause in sorted(status.failures.items()):
        numbers[cause or "cause unknown"].append(number)
    return [(_trials(found), cause) for cause, found in numbers.items()]


def _trials(numbers: list[int]) -> str:
    named = ", ".join(map(str, numbers[:MAX_NAMED]))
    more = f" and {len(numbers) - MAX_NAMED} more" if len(numbers) > MAX_NAMED else ""
    return f"trial{'s' if len(numbers) > 1 else ''} {named}{more}"


def _sentence(cause: str | None) -> str:
    return f"{(cause or 'cause unknown').rstrip('.')}."
