"""Tables between markers are written anew, wrong markers are named, and README has what the committed rows say."""

import re
import sys

import pytest

from benchmarks import readme
from benchmarks.markdown import markdown_table

BEGIN, END = "<!-- table: sizes -->", "<!-- end of table -->"
TABLES = {"sizes": lambda: markdown_table(["", "size"], [["a", "1"], ["b", "2"]])}
SIZES = f"{BEGIN}\n|  | size |\n|---|---|\n| a | 1 |\n| b | 2 |\n{END}"


def test_a_table_is_written_and_all_else_stays() -> None:
    old = SIZES.replace("| b | 2 |", "| b | 3 |")
    text = "# Page\n\nBefore:\n\n{}\n\n| another | table |\n|---|---|\n\nThe end, <!-- table: in a line --> too.\n"
    written, differs = readme.rewrite(text.format(old), TABLES, "page.md")
    assert written == text.format(SIZES)
    assert differs == {"sizes": True}
    assert readme.rewrite(written, TABLES, "page.md") == (written, {"sizes": False})


def test_an_empty_table_is_filled_and_one_of_two_may_differ() -> None:
    text = f"{BEGIN}\n{END}\n{SIZES}"
    assert readme.rewrite(text, TABLES, "page.md") == (f"{SIZES}\n{SIZES}", {"sizes": True})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["", BEGIN, "| a |"], "page.md:2: table 'sizes' must end with a line <!-- end of table -->."),
        (["| a |", END], "page.md:2: an end of table must follow a table, but none is open."),
        ([BEGIN, END, END], "page.md:3: an end of table must follow a table, but none is open."),
        ([BEGIN, "", BEGIN, END, END], "page.md:3: table 'sizes' begins before table 'sizes' of line 1 has ended."),
        (["<!-- table: size -->", END], "page.md:1: unknown table 'size'. Known: sizes."),
        (["<!-- table -->", END], "page.md:1: unknown table ''. Known: sizes."),
    ],
)
def test_a_wrong_marker_is_named_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(readme.MarkerError, match=f"^{re.escape(message)}$"):
        readme.rewrite("\n".join(lines), TABLES, "page.md")


@pytest.mark.benchmarks
def test_the_committed_pages_have_the_committed_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["readme", "--check"])
    readme.main()
    assert capsys.readouterr().out == ""
