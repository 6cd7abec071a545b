"""Sensitivity: how the score falls when each group of channels alone is pruned, and the widths that follow from it."""
