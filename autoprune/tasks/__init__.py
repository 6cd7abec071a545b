"""What the user brings: model, data, loss and metric, from a space file to a checked ``Task``."""
