"""Networks, records and training states of a study's runs: in its folder, or in the place ``search.checkpoints`` names.

Whoever holds a :class:`StudyFolder` takes them from its ``checkpoint_store`` and does not ask which of the two it is.
"""

from typing import TYPE_CHECKING

from autoprune.study.checkpoints._base import Checkpoints
from autoprune.study.checkpoints.local import LocalCheckpoints
from autoprune.study.checkpoints.remote import RemoteCheckpoints

if TYPE_CHECKING:
    from autoprune.study.folder import StudyFolder

__all__ = ["Checkpoints", "LocalCheckpoints", "RemoteCheckpoints", "make_checkpoints"]


def make_checkpoints(folder: "StudyFolder", uri: str | None, study: str) -> Checkpoints:
    """Make the checkpoints of a study.

    Args:
        uri: ``search.checkpoints`` of its space file; ``None`` keeps everything in the folder.
        study: The study's name.
    """
    return LocalCheckpoints(folder) if uri is None else RemoteCheckpoints(folder, uri, study)
