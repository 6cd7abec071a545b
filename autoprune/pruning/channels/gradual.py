"""Gradual pruning: how far the asked ratios are reached at a share of the way there; importing this loads no torch."""

from collections.abc import Mapping


def cubic_ratio(progress_share: float, start: float, final: float) -> float:
    """Return the ratio after a share of the gradual phase: fast at first, slow at the end.

    Args:
        progress_share: Share of the phase that is done; ``start`` holds at 0 and before, ``final`` at 1 and after.

    Returns:
        ``final + (start - final) * (1 - progress_share) ** 3``.

    Source:
        Zhu & Gupta 2017, arXiv 1710.01878, eq. 1
    """
    if progress_share >= 1:
        return final
    return final + (start - final) * (1 - max(0.0, progress_share)) ** 3


def gradual_widths(start_widths: Mapping[str, int], final_widths: Mapping[str, int], t: float) -> dict[str, int]:
    """Return the widths after a share ``t`` of the gradual phase; the removed share follows ``cubic_ratio``.

    Args:
        start_widths: Group name -> channels at the start, for every group in ``final_widths``.
        final_widths: Group name -> channels at the end, which holds from ``t = 1`` on.

    Returns:
        Group name -> channels, never fewer than at the end.
    """
    return {name: round(cubic_ratio(t, start_widths[name], final)) for name, final in final_widths.items()}


def gradual_weight_ratios(
    start_ratios: Mapping[str, float], final_ratios: Mapping[str, float], t: float
) -> dict[str, float]:
    """Return the weight-pruning ratios after a share ``t`` of the gradual phase.

    Args:
        start_ratios: Parameter name -> ratio at the start; 0 where a name is missing.
        final_ratios: Parameter name -> ratio at the end, which holds from ``t = 1`` on.
    """
    return {name: cubic_ratio(t, start_ratios.get(name, 0.0), final) for name, final in final_ratios.items()}
