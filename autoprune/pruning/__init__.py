"""Pruning: what of a network can be removed (plan), how much each part matters (importance), and removing it."""
