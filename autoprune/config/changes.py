"""What differs between two space files, for the refusal to mix two searches in one study."""

from typing import Any

from autoprune.config.model import SearchConfig

FREE_TO_CHANGE = (
    "search.trials",
    "search.epochs",
    "search.max_failures",
    "search.max_retries",
    "search.trial_timeout",
    "certify",
    "resources",
)
"""Settings that change how long and where a study runs, not what its trials are."""

_ABSENT = "(not given)"


def differences(old: SearchConfig, new: SearchConfig) -> list[str]:
    """Each difference as ``"place: old -> new"``, but for those that a study may change between two runs."""
    return [
        line
        for place, line in _compare(old.model_dump(mode="json"), new.model_dump(mode="json"), "")
        if not place.startswith(FREE_TO_CHANGE)
    ]


def _compare(old: Any, new: Any, place: str) -> list[tuple[str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            found
            for key in dict.fromkeys([*old, *new])
            for found in _compare(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{place}.{key}" if place else str(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            found
            for index, pair in enumerate(zip(old, new, strict=True))
            for found in _compare(*pair, f"{place}[{index}]")
        ]
    return [] if old == new else [(place, f"{place}: {old} -> {new}")]
