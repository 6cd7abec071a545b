"""Write README's tables from the committed rows of the benchmarks.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``, each a line of its own, in README.md or
in a page of docs/. The benchmark whose rows it shows makes its lines; nothing is measured here.

    python -m benchmarks.readme             # rewrite the tables
    python -m benchmarks.readme --check     # change nothing; exit with 1 if a table is not what its rows say
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

import pandas as pd

from benchmarks import coverage, driver_overhead, reconstruction, synthetic_layers, training_settings
from benchmarks.search_quality import readme_tables as search_quality

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"

TABLES: Mapping[str, tuple[str, Callable[[pd.DataFrame], list[str]]]] = {
    "coverage": ("coverage.parquet", coverage.readme_table),
    "reconstruction": ("reconstruction.parquet", reconstruction.readme_table),
    "driver_overhead": ("driver_overhead.parquet", driver_overhead.readme_table),
    "search_quality_fashion": ("search_quality.parquet", search_quality.fashion),
    "search_quality_digits": ("search_quality.parquet", search_quality.digits),
    "search_quality_cifar10_resnet20": ("search_quality.parquet", search_quality.cifar10_resnet20),
    "search_quality_ablations": ("search_quality.parquet", search_quality.ablations),
    "synthetic_layers": ("synthetic_layers.parquet", synthetic_layers.readme_table),
    "joint": ("joint.parquet", search_quality.joint),
    "training_settings": ("training_settings.parquet", training_settings.readme_table),
}
"""Name -> the file of its rows, and what makes its lines of them."""

MARKER = re.compile(r"<!--\s*(?:table\b\s*:?\s*(?P<name>.*?)|(?P<end>end of table))\s*-->\s*")


class MarkerError(ValueError):
    """A marker of a page is wrong; the message says where and why."""


def rewrite(text: str, tables: Mapping[str, Callable[[], list[str]]], page: str) -> tuple[str, dict[str, bool]]:
    """Return a page with its tables written anew, and for each table in it whether it differed.

    Args:
        tables: Name -> what makes its lines. Only those of the page are made.
        page: The page's name, for messages.

    Raises:
        MarkerError: If a table has no end or begins inside another, an end has no table, or a name is unknown.
    """
    found: list[str] = []
    differs: dict[str, bool] = {}
    name, begin, old = "", 0, list[str]()
    for number, line in enumerate(text.split("\n"), start=1):
        marker = MARKER.fullmatch(line)
        if marker is None:
            (old if begin else found).append(line)
        elif marker["end"]:
            if not begin:
                raise MarkerError(f"{page}:{number}: an end of table must follow a table, but none is open.")
            new = tables[name]()
            differs[name] = differs.get(name, False) or new != old
            found += [*new, line]
            begin = 0
        elif begin:
            raise MarkerError(
                f"{page}:{number}: table '{marker['name']}' begins before table '{name}' of line {begin} has ended."
            )
        elif marker["name"] not in tables:
            raise MarkerError(
                f"{page}:{number}: unknown table '{marker['name']}'. Known: {', '.join(sorted(tables)) or 'none'}."
            )
        else:
            name, begin, old = marker["name"], number, []
            found.append(line)
    if begin:
        raise MarkerError(f"{page}:{begin}: table '{name}' must end with a line <!-- end of table -->.")
    return "\n".join(found), differs


def rewrite_pages(check: bool) -> list[str]:
    """Rewrite the tables of all pages, unless they are only checked.

    Returns:
        A line for each table that differed.

    Raises:
        MarkerError: If a marker is wrong, or a table that can be made is on no page. Then no page is changed.
    """
    read = cache(pd.read_parquet)
    tables = {name: partial(lambda file, lines: lines(read(RESULTS / file)), *made) for name, made in TABLES.items()}
    pages, told, missing = dict[Path, str](), list[str](), set(TABLES)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        page = str(path.relative_to(ROOT))
        text, differs = rewrite(path.read_text(), tables, page)
        missing -= set(differs)
        if any(differs.values()):
            pages[path] = text
            told += [f"{page}: table '{name}' differs from its rows" for name, differ in differs.items() if differ]
    if missing:
        raise MarkerError(f"every table must be on a page, but these are on none: {', '.join(sorted(missing))}.")
    if not check:
        for path, text in pages.items():
            path.write_text(text)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say which tables differ")
    args = parser.parse_args()
    try:
        told = rewrite_pages(args.check)
    except MarkerError as error:
        sys.exit(str(error))
    for line in told:
        print(line if args.check else f"{line}: rewritten")
    if args.check and told:
        sys.exit(1)


if __name__ == "__main__":
    main()
