"""Read a space file: every mistake is found at once, and each is told with its line."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from autoprune.config.model import SearchConfig
from autoprune.config.task import TaskSettings
from autoprune.errors import ConfigError

Place = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.1's safe loader, but ``1e-5`` is a number, ``2024-01-31`` and ``2:4`` a text, as in YAML 1.2."""


_BASE_SIXTY = ("tag:yaml.org,2002:str", re.compile(r"^[-+]?[0-9_]+(:[0-9]+)+(\.[0-9_]*)?$"))
_Loader.yaml_implicit_resolvers = {
    first: [_BASE_SIXTY, *((tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class SpaceFile:
    """A space file, read and validated once.

    Attributes:
        path: As the user gave it.
        content: The file's bytes, as they were read.
        base_dir: The folder that the names in the file are looked up in first, as seen when the file was read.
    """

    path: Path
    content: bytes
    config: SearchConfig
    base_dir: Path


def load_config(path: Path, *, schema_1: bool = False) -> SearchConfig:
    """Read and validate a space file; arguments and ConfigError as in :func:`read_space_file`."""
    return read_space_file(path, schema_1=schema_1).config


def read_space_file(path: Path, *, schema_1: bool = False) -> SpaceFile:
    """Read and validate a space file.

    Args:
        schema_1: Whether it is that of a study of schema 1, whose metric was always called accuracy and maximised.

    Raises:
        ConfigError: With every mistake in the file, each with its line.
    """
    try:
        content = path.read_bytes()
        text = content.decode()
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file. Shipped examples are in search_spaces/."]) from None
    except IsADirectoryError:
        inside = sorted(file.name for file in path.glob("*.yaml"))
        found = f" In it: {', '.join(inside)}." if inside else ""
        raise ConfigError([f"{path}: a space file is a YAML file, got a folder. Name the file in it.{found}"]) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            [f"{path}:{line}: a space file is YAML text in UTF-8, got other bytes. Save it as UTF-8, or name another."]
        ) from None
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror or error}. Name another file."]) from None
    return SpaceFile(path, content, parse_config(text, str(path), schema_1=schema_1), path.absolute().parent)


def parse_config(text: str, name: str, *, schema_1: bool = False) -> SearchConfig:
    """Validate the text of a space file; ``name`` stands for the file in messages. Raises ConfigError."""
    lines: dict[Place, int] = {(): 1}
    problems: list[tuple[int, str]] = []
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        _walk(root, (), lines, problems)  # before the values are made, which writes merged keys into the nodes
        raw = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([f"{name}:{line}: not valid YAML: {error.problem or error.context}."]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([f"{name}:{line}: not valid YAML: {error.reason}."]) from None
    except (ValueError, RecursionError) as error:  # a tag such as !!int before a text; an alias inside its own anchor
        raise ConfigError([f"{name}:1: not valid YAML: {error}."]) from None
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else type(raw).__name__
        raise ConfigError([f"{name}:1: a space file is a mapping with keys such as study and task, got {found}."])
    if schema_1:
        _name_metric(raw)
    try:
        spec = SearchConfig.model_validate(raw)
    except ValidationError as error:
        problems += [_tell(problem, raw, lines) for problem in error.errors(include_url=False)]
    if problems:
        raise ConfigError([f"{name}:{line}: {message}" for line, message in sorted(problems)])
    return spec


def _name_metric(raw: dict[str, Any]) -> None:
    """Give the metric of a space file of schema 1 the name and the direction that it had."""
    task = raw.get("task")
    if isinstance(task, dict) and (metric := task.get("metric")) is not None:
        own = metric if isinstance(metric, dict) else {"callable": metric}
        task["metric"] = own | {"name": "accuracy", "direction": "maximize"}


def valid_task(path: Path) -> TaskSettings | None:
    """The `task` section of a space file that has mistakes elsewhere; ``None`` if it can't be read by itself."""
    try:
        return TaskSettings.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)["task"])
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError):
        return None


def located(path: Path, message: str) -> str:
    """Put a valid space file's name and line before each line of a message that begins with a place, such as task.data.

    A message that names no place is about the task as a whole.
    """
    lines: dict[Place, int] = {(): 1}
    _walk(yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader), (), lines, [])
    told = []
    for part in message.splitlines():
        named = re.match(r"[a-z_]+(\.[a-z_]+)*(?=[:. ])", part)
        place = tuple(named[0].split(".")) if named else ()
        if place[:1] not in lines or not place:
            place = ("task",)
        told.append(f"{path}:{_line(place, lines)}: {part}")
    return "\n".join(told)


def _walk(node: Any, place: Place, lines: dict[Place, int], problems: list[tuple[int, str]]) -> None:
    """Note the line of every key and item below ``node``, and every key that stands twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))  # a key that is a list or a mapping is refused where values are made
            line = key.start_mark.line + 1
            if inner in lines:
                problems.append((line, f"{_dotted(inner)} stands twice (first in line {lines[inner]})."))
            lines[inner] = line
            _walk(value, inner, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*place, index)] = value.start_mark.line + 1
            _walk(value, (*place, index), lines, problems)


def _tell(problem: ErrorDetails, raw: Any, lines: dict[Place, int]) -> tuple[int, str]:
    """Turn one pydantic problem into a line number and a message with a dotted place."""
    place: Place = ()
    value = raw
    for part in problem["loc"]:
        if isinstance(value, dict) and part in value:
            value = value[part]
            place = (*place, str(part))
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
            place = (*place, part)
        # Else it is a union's tag, or the 0 of a single section where a list may stand: the file shows neither.
    message = problem["msg"]
    if problem["type"] == "missing":
        return _line(place, lines), f"{_dotted((*place, problem['loc'][-1]))} is missing."
    if message.startswith("unknown key"):
        return _line(place, lines), f"{_dotted(place[:-1]) or 'the file'}: {message}."
    if message.startswith(("must ", "needs ", "names ")):
        return _line(place, lines), f"{_dotted(place)} {message}."
    plain = not isinstance(value, dict | list) and message.startswith(("Input ", "String "))
    got = f", got {value!r}" if plain else ""
    return _line(place, lines), f"{_dotted(place)}: {message[0].lower()}{message[1:]}{got}."


def _line(place: Place, lines: dict[Place, int]) -> int:
    while place not in lines:
        place = place[:-1]
    return lines[place]


def _dotted(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
