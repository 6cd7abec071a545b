"""From ``"module:callable"`` in a space file to the callable and what it returns; errors point at the user's code."""

import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from autoprune.errors import AutopruneError, TaskError, did_you_mean
from autoprune.tasks.working_folder import working_in


def load_callable(reference: str, base_dir: Path, where: str) -> Callable[..., Any]:
    """Import a callable.

    A module in ``base_dir`` goes before one of the same name on the Python path, as a script's own folder does;
    ``base_dir`` stays on the path of this process. While the module is imported, it is the current directory too.

    Args:
        reference: ``"module:callable"``, such as ``"autoprune.zoo:small_cnn"`` or ``"my_task:Nets.small"``.
        base_dir: The space file's folder.
        where: What to call the reference in an error, such as ``"task.model"``.

    Raises:
        TaskError: If the reference has another form, there is no such module or name, the module raises when it is
            imported, or the name is no callable.
    """
    module_name, colon, name = reference.partition(":")
    if not (colon and module_name and name):
        raise TaskError(f"{where} must have the form module:callable, got '{reference}'.")
    base_dir = base_dir.resolve()
    with working_in(base_dir):
        found: Any = _import_module(module_name, base_dir, where)
    for part in name.split("."):
        if not hasattr(found, part):
            raise TaskError(f"{where}: {module_name} has no '{part}'{did_you_mean(part, _public_names(found))}.")
        found = getattr(found, part)
    if not callable(found):
        raise TaskError(f"{where}: {reference} must be a callable, got a {type(found).__name__}.")
    checked: Callable[..., Any] = found
    return checked


def call(function: Callable[..., Any], args: Mapping[str, Any], where: str) -> Any:
    """Call the user's callable with keyword arguments.

    Raises:
        TaskError: If the arguments don't fit its signature, or it raises: then with the exception and the line of the
            user's code.
    """
    check_signature(function, (), args, where)
    try:
        return function(**args)
    except AutopruneError as error:
        raise TaskError(f"{where}: {error}") from error
    except (Exception, SystemExit) as error:
        raise TaskError(f"{where}: {_name_of(function)} raised {_describe(error)}.") from error


def check_signature(
    function: Callable[..., Any], positional: tuple[str, ...], args: Mapping[str, Any], where: str
) -> None:
    """Check that a callable takes these positional arguments and keywords.

    Raises:
        TaskError: If it doesn't.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in callables show no signature
        return
    try:
        signature.bind(*positional, **args)
    except TypeError as error:
        given = ", ".join([*positional, *(f"{name}={value!r}" for name, value in args.items())])
        raise TaskError(
            f"{where}: {_name_of(function)}{signature} can't be called as {_name_of(function)}({given}): {error}."
        ) from error


def _import_module(name: str, base_dir: Path, where: str) -> ModuleType:
    if str(base_dir) in sys.path:
        sys.path.remove(str(base_dir))
    sys.path.insert(0, str(base_dir))
    importlib.invalidate_caches()
    _forget_namesake(name.partition(".")[0], base_dir)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise TaskError(f"{where}: importing {name} raised {_describe(error)}.") from error
        hint = did_you_mean(error.name, [path.stem for path in base_dir.glob("*.py")])
        raise TaskError(f"{where}: no module '{error.name}' in {base_dir} or on the Python path{hint}.") from error
    except (Exception, SystemExit) as error:
        raise TaskError(f"{where}: importing {name} raised {_describe(error)}.") from error


def _forget_namesake(top: str, base_dir: Path) -> None:
    """Drop a module that was imported from elsewhere under the name of one in ``base_dir``."""
    local = PathFinder.find_spec(top, [str(base_dir)])
    loaded = sys.modules.get(top)
    if local is None or local.origin is None or loaded is None:
        return
    origin = getattr(loaded.__spec__, "origin", None)
    if origin is None or Path(origin).resolve() != Path(local.origin).resolve():
        for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
            del sys.modules[name]


def _describe(error: BaseException) -> str:
    """``TypeError: message (file:line)``, at the innermost line that belongs to no library."""
    text = f"{type(error).__name__}: {error}".removesuffix(".")
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    libraries = tuple(sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib"))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if not frame.filename.startswith((*libraries, "<"))]
    if not (own or frames):
        return text
    frame = (own or frames)[-1]
    return f"{text} ({frame.filename}:{frame.lineno})"


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def _public_names(owner: Any) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]
