"""`autoprune plan --sensitivity`: the table, the picture, the JSON, and what it needs."""

import json
from pathlib import Path

import pytest
from command_line import run_well
from PIL import Image
from tiny import copy_study, write_space

from autoprune.study.folder import StudyFolder

pytestmark = pytest.mark.xdist_group("cli_sensitivity")  # its fixtures take long: one process makes them


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, trained_tiny: Path) -> Path:
    """The folder of a space file whose study has trained the dense network."""
    root = tmp_path_factory.mktemp("sensitivity")
    return copy_study(trained_tiny, root, {"pruning": [{"method": "neuron", "criterion": ["l1", "l2"]}]}).parent


def test_the_table_and_the_picture_of_a_study(study: Path) -> None:
    _, out, err = run_well("plan", "space.yaml", "--sensitivity", cwd=study)
    lines = [line.rstrip() for line in out.splitlines()]
    assert max(map(len, lines)) <= 80
    start = lines.index("sensitivity: accuracy by share of channels kept")
    assert lines[start + 1].split() == ["group", "width", "75%", "50%", "25%", "10%"]
    rows = [line.split() for line in lines[start + 2 :] if len(line.split()) == 6 and line.split()[1] == "8"]
    assert {row[0] for row in rows} == {"stem", "block1.conv1", "block2.conv1"}
    assert all(0 <= float(cell) <= 1 for row in rows for cell in row[2:])
    assert float(rows[0][-1]) < float(rows[-1][2])  # the most sensitive comes first
    assert "channels that l1 ranks lowest" in " ".join(" ".join(lines).split())
    assert err == ""  # no progress where there is no terminal
    picture = study / "results/tiny/sensitivity.png"
    assert "  results/tiny/sensitivity.png  the same as a picture" in lines
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 1000


def test_json_holds_the_map_and_writes_no_picture_unasked(study: Path, tmp_path: Path) -> None:
    picture = study / "results/tiny/sensitivity.png"
    picture.unlink(missing_ok=True)
    record = json.loads(run_well("plan", "space.yaml", "--sensitivity", "--json", "--examples", 50, cwd=study).out)
    found = record["sensitivity"]
    assert {point["group"] for point in found["points"]} == {group["name"] for group in record["groups"]}
    assert [point["width"] for point in found["points"] if point["group"] == "stem"] == [6, 4, 2, 1]
    assert found["n_examples"] == (1 + 3 * 4) * (50 + 200)  # 50 judged on, and all 200 for batch norm
    assert found["dense_score"] * 50 == pytest.approx(round(found["dense_score"] * 50), abs=1e-4)
    assert not picture.exists()
    svg = tmp_path / "out.svg"
    run_well("plan", "space.yaml", "--sensitivity", "--json", "--examples", 50, "--plot", svg, cwd=study)
    assert "<svg" in svg.read_text()


def test_given_weights_need_no_study(study: Path, tmp_path: Path) -> None:
    weights = StudyFolder(study / "results/tiny").dense / "model.safetensors"
    space = write_space(tmp_path, {"task": {"weights": str(weights)}})
    printed = run_well("plan", space.name, "--sensitivity", "--examples", 50, cwd=tmp_path).out
    assert "tiny-sensitivity.png" in printed
    assert (tmp_path / "tiny-sensitivity.png").exists()


def test_without_trained_weights_the_way_out_is_told(tmp_path: Path) -> None:
    err = run_well("plan", write_space(tmp_path, {}), "--sensitivity", cwd=tmp_path, code=2).err
    assert "space.yaml:" in err
    assert "task.weights: sensitivity is measured on a trained network" in err
    assert "run `autoprune search` first" in err
    assert not (tmp_path / "tiny-sensitivity.png").exists()


def test_a_study_of_another_space_file_is_refused(tmp_path: Path, trained_tiny: Path) -> None:
    space = copy_study(trained_tiny, tmp_path, {})
    (tmp_path / "results/tiny/space.yaml").write_text(space.read_text().replace("epochs: 8", "epochs: 9"))
    assert "dense.epochs: 9 -> 8" in run_well("plan", space, "--sensitivity", cwd=tmp_path, code=2).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "a.png"], "belong to --sensitivity"),
        (["--examples", "9"], "belong to --sensitivity"),
        (["--sensitivity", "--plot", "a.bmp"], "must end in .png, .svg, .pdf"),
        (["--sensitivity", "--plot", "nowhere/a.png"], "no folder nowhere"),
    ],
)
def test_bad_options(tmp_path: Path, arguments: list[str], message: str) -> None:
    err = run_well("plan", "space.yaml", *arguments, cwd=tmp_path, code=2).err
    assert message in " ".join(err.replace("│", " ").split())
