"""What a format is: how a network is written in it, how its files are run, and what it needs to be installed."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from autoprune.formats.network import Network
from autoprune.network.call import Inputs


class Format(ABC):
    """A form of files that a trained network is written in and run from.

    Attributes:
        name: The name that users give.
        files: Names of the files that it writes, all of them in one folder.
        packages: The packages that it needs, as pip names them; their versions go into the manifest.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    packages: ClassVar[tuple[str, ...]]

    @abstractmethod
    def write(self, network: Network, folder: Path, batch: int | None = None) -> None:
        """Write the files, each whole or not at all, over those of an earlier attempt.

        Args:
            batch: The only batch size that the written network must take; ``None`` for any.
        """

    @abstractmethod
    def load(self, folder: Path, base_dir: Path | None = None) -> Callable[[Inputs], Any]:
        """Load the network from its files alone, and return a function that runs it.

        Args:
            base_dir: Folder that the user's own modules are imported from, for a format that needs the network's code.

        Returns:
            Inputs, on the CPU, to outputs: the same tensors in the same order as the written network's.
        """

    def missing_packages(self) -> list[str]:
        """Return the packages that it needs and that are not installed."""
        return [package for package in self.packages if find_spec(package) is None]
