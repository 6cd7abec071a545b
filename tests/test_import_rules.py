"""Who may import whom: arrows point down the list of levels, and heavy packages load only where they are needed."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "autoprune"

LEVELS = (
    {"cli", "__main__"},
    {"api"},
    {"report", "export", "engines"},
    {"search"},
    {"worker"},
    {"study"},
    {"formats"},
    {"training", "pruning", "cost", "datasets", "zoo"},
    {"tasks"},
    {"network", "config"},
    {"trial", "training.schedules", "errors", "files"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def level_of(module: str) -> int:
    """The level of a module: that of the innermost room that has one; -1 for the package's own public names."""
    parts = module.split(".")[1:]
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((LEVEL[name] for name in names if name in LEVEL), -1)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every module a file imports, anywhere in it, with the line."""
    module = path.relative_to(PACKAGE.parent).with_suffix("")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*module.parts[: len(module.parts) - node.level]] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, source
            if source == "autoprune":
                yield from ((node.lineno, f"autoprune.{alias.name}") for alias in node.names)


def room_of(module: str) -> str:
    """The folder or file right below autoprune that a module lies in."""
    return module.split(".")[1]


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = [
    (".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts), line, imported)
    for path in FILES
    for line, imported in imports_of(path)
]
OWN = [
    (importer, line, imported)
    for importer, line, imported in IMPORTS
    if importer != "autoprune.__init__" and imported.startswith("autoprune.")
]


def test_every_room_has_a_level() -> None:
    rooms = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert rooms - {"__init__", "__pycache__", "py"} == {room for room in LEVEL if "." not in room}


def test_imports_were_found() -> None:
    assert ("autoprune.search.space.space", "autoprune.config") in {
        (importer, imported) for importer, _, imported in OWN
    }
    assert any(
        importer.startswith("autoprune.cli.") and imported == "rich.console" for importer, _, imported in IMPORTS
    )


def test_arrows_point_down() -> None:
    up = [
        f"{importer}:{line} imports {imported}"
        for importer, line, imported in OWN
        if level_of(imported) < level_of(importer)
    ]
    assert up == []


@pytest.mark.parametrize(
    ("package", "rooms"),
    [("ray", {"engines"}), ("optuna", {"search", "study"}), ("typer", {"cli"}), ("matplotlib", {"report"})],
)
def test_packages_that_only_some_rooms_know(package: str, rooms: set[str]) -> None:
    assert {room_of(importer) for importer, _, imported in IMPORTS if imported.split(".")[0] == package} <= rooms


def test_ray_is_known_to_three_files() -> None:
    assert {importer for importer, _, imported in IMPORTS if imported.split(".")[0] == "ray"} <= {
        "autoprune.engines.ray_private",
        "autoprune.engines.ray_start",
        "autoprune.engines.ray_tune",
    }


def test_one_file_leans_on_private_parts_of_ray() -> None:
    modules = {importer for importer, _, imported in IMPORTS if imported.startswith("ray.") and "._" in imported}
    assert modules == {"autoprune.engines.ray_private"}


def test_of_the_study_only_its_storage_knows_optuna() -> None:
    knowing = {importer for importer, _, imported in IMPORTS if imported.split(".")[0] == "optuna"}
    assert {name for name in knowing if room_of(name) == "study"} == {
        "autoprune.study.database",
        "autoprune.study.optuna_private",
        "autoprune.study.optuna_storage",
    }


def test_one_file_leans_on_private_parts_of_optuna() -> None:
    found = set()
    for path in FILES:
        text = path.read_text()
        private = re.search(r"\bstudy\._[a-z]|\btrial\._[a-z]|\b_(storage|study_id|trial_id)\b(?!\()", text)
        imported = any(name.startswith("optuna.") and "._" in name for _, name in imports_of(path))
        if (private and "optuna" in text) or imported:
            found.add(path.relative_to(PACKAGE).as_posix())
    assert found == {"study/optuna_private.py"}


@pytest.mark.parametrize("room", ["report", "study", "config", "training.schedules", "trial", "search.space"])
def test_rooms_without_torch(room: str) -> None:
    inside = (f"autoprune.{room}", f"autoprune.{room}.")
    found = [
        f"{a}:{n}" for a, n, b in IMPORTS if (a == inside[0] or a.startswith(inside[1])) and b.split(".")[0] == "torch"
    ]
    assert found == []


def test_pruning_training_and_cost_know_nothing_of_each_other() -> None:
    apart = {"pruning", "training", "cost"}
    found = [
        f"{importer}:{line} imports {imported}"
        for importer, line, imported in OWN
        if {room_of(importer), room_of(imported)} <= apart
        and room_of(importer) != room_of(imported)
        and not importer.startswith("autoprune.pruning.sensitivity.")  # it finds the widths that a cost allows
    ]
    assert found == []


def test_the_worker_side_knows_nothing_of_the_study() -> None:
    below = {room for level in LEVELS[LEVELS.index({"formats"}) :] for room in level} | {"worker"}
    assert [
        f"{importer}:{line} imports {imported}"
        for importer, line, imported in IMPORTS
        if room_of(importer + ".") in below
        and imported.startswith(("optuna", "ray", "autoprune.search.space", "autoprune.search"))
    ] == []


def loaded_after(code: str) -> set[str]:
    """Top-level packages that a fresh process has loaded after running some code."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


def test_importing_autoprune_is_light() -> None:
    assert loaded_after("import autoprune") & {"torch", "ray", "optuna", "pandas", "matplotlib"} == set()


def test_reading_a_space_file_is_light() -> None:
    assert loaded_after("import autoprune.config") & {"torch", "ray", "optuna", "pandas", "numpy"} == set()


def test_making_a_search_space_loads_no_torch() -> None:
    loaded = loaded_after("import autoprune.search.space")
    assert "optuna" in loaded
    assert loaded & {"torch", "ray"} == set()


def test_ray_can_be_started_before_all_else_is_loaded() -> None:
    loaded = loaded_after("import autoprune.engines.ray_start")
    assert "ray" in loaded
    assert loaded & {"torch", "optuna", "pandas", "sklearn"} == set()


def test_status_and_pareto_are_light() -> None:
    loaded = loaded_after(
        "import autoprune.study.reader\n"
        "import autoprune.report.rungs, autoprune.report.lineage, autoprune.report.tables"
    )
    assert "pandas" in loaded
    assert loaded & {"torch", "optuna", "ray", "scipy", "matplotlib"} == set()
    loaded = loaded_after("import autoprune.study.status, autoprune.study.optuna_storage")
    assert "optuna" in loaded
    assert loaded & {"torch", "ray", "scipy", "matplotlib"} == set()


@pytest.mark.parametrize("verb", ["pareto", "show", "status", "export"])
def test_a_verb_that_reads_a_study_knows_its_reader_only(verb: str) -> None:
    imported = {name for importer, _, name in OWN if importer == f"autoprune.cli.{verb}"}
    assert {name for name in imported if room_of(name) in ("study", "search", "config")} == {"autoprune.study.reader"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["search", "--help"], ["export", "--help"], ["plan", "--help"]])
def test_help_is_light(arguments: list[str]) -> None:
    code = (
        f"sys.argv = ['autoprune', *{arguments!r}]\nfrom autoprune.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    loaded = loaded_after(code)
    assert "typer" in loaded
    assert loaded & {"torch", "ray", "optuna", "pandas", "matplotlib"} == set()
