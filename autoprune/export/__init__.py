"""From a study to a file that runs elsewhere: choosing the trial, and exporting its network in verified formats."""

from autoprune.export.export import export_model
from autoprune.export.manifest import FileRecord, Manifest, TensorRecord, read_manifest
from autoprune.export.select import DEFAULT_DROP, select_trial
from autoprune.export.study import export_trial

__all__ = [
    "DEFAULT_DROP",
    "FileRecord",
    "Manifest",
    "TensorRecord",
    "export_model",
    "export_trial",
    "read_manifest",
    "select_trial",
]
