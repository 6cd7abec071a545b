"""Samplers: Optuna's by name, one of the user's own, and the one that knows what a candidate costs."""
