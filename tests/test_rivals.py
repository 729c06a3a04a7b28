"""benchmarks/rivals.py: scenes of clones, and a protocol that run_eval.py understands."""

import csv
from pathlib import Path

import pytest

from benchmarks import rivals
from utils.evaluation.scoring import find_eval_scenes
from utils.files import read_table
from utils.pictures.image import read_image, write_image

ROOT = Path(__file__).resolve().parents[1]


def test_a_clone_gives_scenes_and_pairs_that_are_judged_by_all_shots(tmp_path, capsys):
    rows = read_table(ROOT / "benchmarks/rivals.csv", ("scene", "repository", "folder"))
    folder = tmp_path / "clones" / rows[0]["repository"].split("/")[1] / rows[0]["folder"]
    for name, source in zip("bca", sorted((ROOT / "data_test/interior").iterdir()), strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / f"{name}.png", read_image(source))
    rivals.main(str(tmp_path / "clones"), str(tmp_path / "scenes"))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(rows) and said[-1].startswith("1 scenes") and "left out" in said[0]
    [scene] = find_eval_scenes(tmp_path / "scenes", tmp_path / "scenes/pairs.csv")
    assert [path.name for path in scene.paths] == ["0.png", "2.png"] and len(scene.stack) == 3
    means = [read_image(path).mean() for path in scene.stack]
    assert means == sorted(means)
    with open(tmp_path / "scenes/pairs.csv", newline="") as file:
        assert next(csv.reader(file)) == ["scene", "under", "over"]
    with pytest.raises(ValueError, match="has none of the repositories"):
        rivals.main(str(tmp_path), str(tmp_path / "scenes"))
