"""benchmarks/votes.py: the judge does not see the methods' names, and votes count for the right method."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.pictures.image import read_image, write_image

VOTES = Path(__file__).parents[1] / "benchmarks" / "votes.py"
LEVELS = {"ours": 40, "mertens": 120, "enfuse": 200}
SCENES = [f"scene {i}" for i in range(9)]


@pytest.fixture
def pictures(tmp_path):
    """Three methods' pictures of nine scenes, each method of its own gray; one more scene that only one has."""
    for method, level in LEVELS.items():
        for scene in SCENES:
            write_image(tmp_path / "pictures" / method / f"{scene}.png", np.full((20, 30, 3), level, np.uint8))
    write_image(tmp_path / "pictures" / "ours" / "other.png", np.zeros((20, 30, 3), np.uint8))
    return tmp_path / "pictures"


def run(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", [str(VOTES), *map(str, options)])
    runpy.run_path(str(VOTES), run_name="__main__")


def test_sheets_and_page_are_blind_and_the_key_is_true(pictures, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "--pictures", pictures, "--out", tmp_path / "out")
    key = json.loads((tmp_path / "out" / "key.json").read_text())
    assert sorted(key) == SCENES
    assert len({tuple(letters.values()) for letters in key.values()}) > 1  # another order in other scenes
    blind = tmp_path / "out" / "blind"
    for scene, letters in key.items():
        assert sorted(letters) == ["A", "B", "C"] and sorted(letters.values()) == sorted(LEVELS)
        sheet = read_image(blind / f"{scene}.png")
        assert [int(sheet[-10, 20 + 38 * i, 0]) for i in range(3)] == [LEVELS[letters[x]] for x in "ABC"]
        for letter, method in letters.items():
            assert read_image(blind / "pictures" / f"{scene}_{letter}.png")[0, 0, 0] == LEVELS[method]
    page = (blind / "page.html").read_text()
    assert "pictures/scene%200_A.png" in page
    everything = page + " ".join(str(path.relative_to(blind)) for path in blind.rglob("*"))
    assert not any(method in everything for method in LEVELS)

    votes = [f"{scene}: {letter}" for scene in SCENES[:5] for letter, m in key[scene].items() if m == "ours"]
    votes += [
        f"{scene} : {letter.lower()}" for scene in SCENES[5:7] for letter, m in key[scene].items() if m == "enfuse"
    ]
    (tmp_path / "votes.txt").write_text("\n".join([*votes, "", f"{SCENES[7]}: none"]))
    capsys.readouterr()
    run(monkeypatch, "--out", tmp_path / "out", "--count", tmp_path / "votes.txt")
    counts = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert counts[0] == ["5", "ours"] and ["2", "enfuse"] in counts and ["1", "none"] in counts
    assert counts[-1] == ["0", "mertens"]


def test_crops_are_where_detail_differs_however_bright_the_pictures(tmp_path, monkeypatch, rng):
    fine = rng.integers(0, 60, (1250, 1850, 3), np.uint8)
    for method, top, left in (("bright", 700, 1300), ("dark", 100, 50)):
        picture = np.full_like(fine, 180 if method == "bright" else 20)
        picture[top : top + 400, left : left + 400] += fine[:400, :400] // (1 if method == "bright" else 2)
        write_image(tmp_path / "pictures" / method / "a.png", picture)
    run(monkeypatch, "--pictures", tmp_path / "pictures", "--out", tmp_path / "out", "--crops", 2)
    key = json.loads((tmp_path / "out" / "key.json").read_text())
    assert sorted(key) == ["a_0", "a_1"]
    for number, (top, left) in enumerate([(600, 1200), (0, 0)]):  # the stronger detail first
        for letter, method in key[f"a_{number}"].items():
            shown = read_image(tmp_path / "out" / "blind" / "pictures" / f"a_{number}_{letter}.png")
            whole = read_image(tmp_path / "pictures" / method / "a.png")
            np.testing.assert_array_equal(shown, whole[top : top + 600, left : left + 600])


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ("scene 0 A", "expected lines SCENE: LETTER"),
        ("nowhere: A", "expected lines SCENE: LETTER"),
        ("scene 0: D", "expected one of A, B, C or none, got 'scene 0: D'"),
        ("scene 0: A\nscene 0: B", "scene 0 was voted on twice"),
    ],
)
def test_votes_that_cannot_be_counted_are_named(pictures, tmp_path, monkeypatch, capsys, votes, message):
    run(monkeypatch, "--pictures", pictures, "--out", tmp_path / "out")
    (tmp_path / "votes.txt").write_text(votes)
    with pytest.raises(SystemExit):
        run(monkeypatch, "--out", tmp_path / "out", "--count", tmp_path / "votes.txt")
    assert message in capsys.readouterr().err


def test_what_cannot_be_shown_is_said(pictures, tmp_path, monkeypatch, capsys):
    for options, message in (
        (["--methods", "ours"], "expected the folders of 2 to 26 methods, got ours"),
        (["--methods", "ours", "nobody"], "nobody: no such folder"),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, "--pictures", pictures, "--out", tmp_path / "out", *options)
        assert message in capsys.readouterr().err
    write_image(pictures / "ours" / "scene 0.png", np.zeros((21, 30, 3), np.uint8))
    with pytest.raises(SystemExit):
        run(monkeypatch, "--pictures", pictures, "--out", tmp_path / "out")
    assert "scene 0: the methods' pictures differ in size" in capsys.readouterr().err
