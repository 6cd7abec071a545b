"""The formats by name."""

from collections.abc import Mapping, Sequence

from autoprune.errors import ExportError, unknown_name
from autoprune.formats._base import Format
from autoprune.formats.onnx_format import OnnxFormat
from autoprune.formats.safetensors_format import SafetensorsFormat
from autoprune.formats.torch_format import TorchFormat

FORMATS: Mapping[str, Format] = {each.name: each for each in (SafetensorsFormat(), OnnxFormat(), TorchFormat())}


def find_formats(names: Sequence[str]) -> list[Format]:
    """Look formats up, each once, and the packages that they need.

    Raises:
        ExportError: If none is named, one is unknown, or needs a package that is not installed.
    """
    if not names:
        raise ExportError(f"formats must name at least one format. Known: {', '.join(FORMATS)}.")
    found = []
    for name in dict.fromkeys(names):
        if name not in FORMATS:
            raise ExportError(unknown_name("export format", name, FORMATS))
        missing = FORMATS[name].missing_packages()
        if missing:
            raise ExportError(
                f"export format {name!r} needs {', '.join(missing)}, not installed here: "
                f"pip install 'autoprune[export]'. Or leave {name!r} out of the formats."
            )
        found.append(FORMATS[name])
    return found
