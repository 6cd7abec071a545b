"""Running trials, with no study, Optuna or Ray in sight: a TrialConfig goes in, reports and a TrialResult come out."""

from autoprune.worker.worker import Worker as Worker
