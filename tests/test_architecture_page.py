"""docs/architecture.md names the levels that hold and files that are there."""

import re
from pathlib import Path

from test_import_rules import LEVELS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_its_levels_are_those_that_hold() -> None:
    listed = PAGE.split("<!-- levels -->")[1].split("<!-- end of levels -->")[0]
    assert tuple(set(re.findall(r"`([\w.]+)`", line)) for line in listed.strip().splitlines()) == LEVELS


def test_every_room_has_a_row() -> None:
    rows = "\n".join(line for line in PAGE.splitlines() if line.startswith("| `"))
    rooms = {room for level in LEVELS for room in level if "." not in room} - {"__main__"}
    assert {room for room in rooms if not re.search(rf"`{room}(/|\.py)", rows)} == set()


def test_the_files_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:autoprune|tests)/[\w./]+)`", PAGE))
    assert len(named) > 10
    assert {name for name in named if not (ROOT / name).exists()} == set()
