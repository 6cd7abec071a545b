"""Candidates that an earlier trial has run already: the sampler is asked again, a few times."""

import json

from autoprune.trial import TrialConfig, TrialResult, to_dict

ASKED_AGAIN = 10
"""Repeats in a row after which candidates are drawn at random, until one is new."""

GIVEN_UP = 100
"""Repeats in a row after which the space counts as searched to its end."""


class Repeats:
    """What has been run, or runs now, and how many candidates in a row were among it.

    Two candidates are the same if they cut the same from the same parent, and train it alike. A trial that failed may
    be tried again.
    """

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        self.in_a_row = 0

    def first(self, config: TrialConfig) -> int | None:
        """Return the number of an earlier trial with the same candidate, ``None`` if there is none."""
        first = self._first.get(_candidate(config))
        return None if first == config.number else first

    def began(self, config: TrialConfig) -> None:
        """Take note of a candidate that is run."""
        self._first.setdefault(_candidate(config), config.number)
        self.in_a_row = 0

    def ended(self, config: TrialConfig, result: TrialResult) -> None:
        """Take note of how a candidate ended, whether it was run or not."""
        if result.state == "repeated":
            self.in_a_row += 1
        elif result.state == "failed" and self.first(config) is None:
            self._first.pop(_candidate(config), None)

    @property
    def at_random(self) -> bool:
        """Whether the sampler has had its chances to find a new candidate."""
        return self.in_a_row >= ASKED_AGAIN

    @property
    def exhausted(self) -> bool:
        """Whether the space seems to hold no new candidate."""
        return self.in_a_row >= GIVEN_UP


def _candidate(config: TrialConfig) -> str:
    """All of a configuration that decides what is run, as text; its seed and the sampler's own figures do not."""
    fields = to_dict(config)
    return json.dumps({name: fields[name] for name in sorted(fields.keys() - {"run", "number", "seed", "params"})})
