"""The search: the driver that owns the study, and the stages before and after it."""
