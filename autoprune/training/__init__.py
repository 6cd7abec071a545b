"""Training a network under schedules, and evaluating it."""
