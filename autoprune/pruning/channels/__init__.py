"""Neuron pruning: which channels of a group matter, which go, and what the layers behind make of the rest."""
