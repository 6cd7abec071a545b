"""Importing and calling what a space file names, and what is said when that fails."""

import math
from pathlib import Path

import pytest

from autoprune.errors import TaskError
from autoprune.tasks.resolve import call, load_callable


def write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)


def test_finds_callables_on_the_python_path(tmp_path: Path) -> None:
    assert load_callable("math:hypot", tmp_path, "task.loss") is math.hypot
    assert load_callable("pathlib:Path.home", tmp_path, "task.loss")() == Path.home()


def test_two_folders_may_use_the_same_module_name(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        write(tmp_path / folder, "resolve_same_name.py", f"def name():\n    return {folder!r}\n")
    for folder in ("first", "second", "first"):
        assert load_callable("resolve_same_name:name", tmp_path / folder, "task.model")() == folder


def test_a_module_is_imported_once(tmp_path: Path) -> None:
    write(tmp_path, "resolve_once.py", "class Net:\n    pass\n")
    first = load_callable("resolve_once:Net", tmp_path, "task.model")
    assert load_callable("resolve_once:Net", tmp_path, "task.model") is first


@pytest.mark.parametrize("reference", ["nets", "nets:", ":small", ""])
def test_form_is_checked(reference: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=rf"task.model must have the form module:callable, got '{reference}'"):
        load_callable(reference, tmp_path, "task.model")


def test_missing_module_names_the_nearest_file(tmp_path: Path) -> None:
    write(tmp_path, "resolve_networks.py", "")
    with pytest.raises(TaskError, match=r"no module 'resolve_network' in .*did you mean 'resolve_networks'"):
        load_callable("resolve_network:small", tmp_path, "task.model")


def test_missing_name_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"task.model: math has no 'hypott' \(did you mean 'hypot'\?\)"):
        load_callable("math:hypott", tmp_path, "task.model")


def test_not_callable(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="math:pi must be a callable, got a float"):
        load_callable("math:pi", tmp_path, "task.model")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ny = x / 0\n", r"ZeroDivisionError: division by zero \(.*resolve_broken.py:2\)"),
        ("x = 1\nimport absent_package\n", r"ModuleNotFoundError: .*'absent_package' \(.*resolve_broken.py:2\)"),
        ("def f(:\n", r"SyntaxError: .*resolve_broken.py:1\)"),
    ],
)
def test_module_that_raises_is_shown_with_its_line(source: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, "resolve_broken.py", source)
    with pytest.raises(TaskError, match=rf"task.data: importing resolve_broken raised {message}"):
        load_callable("resolve_broken:f", tmp_path, "task.data")


def test_wrong_arguments_show_the_signature() -> None:
    def net(width: int, depth: int = 2) -> None: ...

    with pytest.raises(
        TaskError, match=r"net\(width: int, depth: int = 2\).* can't be called as .*net\(widht=3\).*'width'"
    ):
        call(net, {"widht": 3}, "task.model")


def test_callable_that_raises_is_shown_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, "resolve_raises.py", "import json\n\ndef data():\n    return json.loads('{')\n")
    data = load_callable("resolve_raises:data", tmp_path, "task.data")
    with pytest.raises(TaskError, match=r"task.data: data raised JSONDecodeError: .* \(.*resolve_raises.py:4\)"):
        call(data, {}, "task.data")


def test_an_own_error_is_passed_on_with_its_place() -> None:
    def data() -> None:
        raise TaskError("no file x.")

    with pytest.raises(TaskError, match=r"^task.data: no file x\.$"):
        call(data, {}, "task.data")
