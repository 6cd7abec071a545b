"""What every export format has: how it is written, and how it is run again from its files."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from autoprune.formats.network import Network
from autoprune.network.call import Inputs


class Exporter(ABC):
    """One export format.

    Attributes:
        name: The name that users give.
        files: Names of the files that it writes, all of them in the export's folder.
        packages: The packages that it needs, as pip names them; their versions go into the manifest.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    packages: ClassVar[tuple[str, ...]]

    @abstractmethod
    def write(self, folder: Path, network: Network, batch: int | None) -> None:
        """Write the files into ``folder``, over those of an earlier attempt.

        Args:
            batch: The only batch size that the exported network must take; ``None`` for any.
        """

    @abstractmethod
    def load(self, folder: Path, network: Network) -> Callable[[Inputs], Any]:
        """Load the network from its files alone.

        Returns:
            Inputs, on the CPU, to outputs: the same tensors in the same order as the exported network's.
        """
