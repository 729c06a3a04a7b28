"""The evaluation's parts: scenes, methods, scores, tables, contact sheets."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils import util_eval
from utils import util_metric as metric
from utils.util_image import read_image, write_image


@pytest.fixture
def data(tmp_path):
    """Two scenes of three exposures, 60x70, whole numbers in a smooth texture."""
    x = cv2.GaussianBlur(np.random.default_rng(0).uniform(-4, 4, (60, 70, 3)), (0, 0), 2) * 4
    for scene, shift in (("alley", 0), ("beach", 0.5)):
        for i, gain in enumerate((-2, 0, 2)):
            picture = 255 / (1 + np.exp(-(x + gain + shift)))
            write_image(tmp_path / "data" / scene / f"{i}.png", np.rint(picture).astype(np.uint8))
    return tmp_path / "data"


def test_scenes_are_folders_in_order(data):
    scenes = util_eval.find_eval_scenes(data)
    assert [scene.name for scene in scenes] == ["alley", "beach"]
    assert [path.name for path in scenes[0].fused] == ["0.png", "1.png", "2.png"] == [p.name for p in scenes[0].scored]


@pytest.mark.parametrize("full_stack", [False, True])
def test_pairs_pick_scenes_and_exposures(data, tmp_path, full_stack):
    table = tmp_path / "pairs.csv"
    table.write_text("\ufeffscene,note,under,over\nbeach,x,0.png,2.png\n", encoding="utf-8")
    (scene,) = util_eval.find_eval_scenes(data, table, full_stack)
    assert scene.name == "beach"
    assert [path.name for path in scene.fused] == ["0.png", "2.png"]
    assert len(scene.scored) == (3 if full_stack else 2)


def test_bad_tables_and_folders_say_what_was_expected(data, tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("scene,dark\nbeach,0.png\n")
    with pytest.raises(ValueError, match="rows with the columns scene, under, over"):
        util_eval.find_eval_scenes(data, table)
    table.write_text("scene,under,over\nbeach,0.png,1.png\nbeach,0.png,2.png\n")
    with pytest.raises(ValueError, match="got 2 rows for 1 scenes"):
        util_eval.find_eval_scenes(data, table)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        util_eval.find_eval_scenes(tmp_path / "nothing")
    with pytest.raises(ValueError, match="found no folder"):
        util_eval.find_eval_scenes(data / "beach")


def test_baselines_are_what_they_say():
    under, over = np.full((8, 8, 3), 10, np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert (util_eval.average([under, over]) == 133).all()  # 132.5, rounded up
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (3, 40, 50, 3)).astype(np.uint8))
    expected = np.clip(np.rint(cv2.createMergeMertens().process(images) * 255), 0, 255)
    assert (util_eval.mertens(images) == expected).all()


@pytest.mark.skipif(shutil.which("enfuse") is None, reason="enfuse is not installed")
def test_enfuse_runs(data):
    images = [read_image(path) for path in util_eval.find_eval_scenes(data)[0].fused]
    assert util_eval.enfuse(images).shape == images[0].shape
    assert "enfuse" in util_eval.enfuse_version()
    with pytest.raises(ValueError, match="enfuse failed: "):
        util_eval.enfuse([])


def test_a_scene_is_scored_as_saved(data, tmp_path):
    scene = util_eval.find_eval_scenes(data)[0]
    folders = {"average": tmp_path / "pictures", "other": tmp_path / "other"}
    exposures = [read_image(path) for path in scene.fused]
    write_image(folders["other"] / "alley.png", exposures[1].astype(np.uint16) * 257)  # 16 bits, read as 8
    sheets = tmp_path / "sheets"
    shutil.copy(scene.fused[1], tmp_path / "alley.png")
    rows = util_eval.score_scene(scene, {"average": util_eval.average}, folders, reference=tmp_path, sheets=sheets)
    assert [(row["scene"], row["method"], row["exposures"]) for row in rows] == [
        ("alley", "average", 3),
        ("alley", "other", 3),
    ]
    stack = np.stack([metric.matlab_gray(x) for x in exposures])
    saved = read_image(folders["average"] / "alley.png")
    assert (saved == util_eval.average(exposures)).all()
    assert rows[0]["mef_ssim"] == metric.mef_ssim(metric.matlab_gray(saved), stack)
    assert rows[1]["mef_ssim_lum"] == metric.mef_ssim_lum(stack[1], stack)
    assert rows[1]["psnr"] == np.inf and rows[1]["ssim"] == pytest.approx(1)
    columns = (*util_eval.FIDELITY, *util_eval.PROFILE, *util_eval.LOOK, *util_eval.REFERENCE)
    assert {"scene", "method", "exposures", "width", "height"} | {column.key for column in columns} == set(rows[0])
    sheet = read_image(sheets / "alley.png")
    assert sheet.shape[1] > 900 and sheet.shape[0] > 400


def test_wrong_sizes_are_named(data, tmp_path):
    scene = util_eval.find_eval_scenes(data)[0]
    with pytest.raises(FileNotFoundError, match="alley.png: no such file"):
        util_eval.score_scene(scene, {}, {"other": tmp_path})
    write_image(tmp_path / "alley.png", np.zeros((60, 71, 3), np.uint8))
    with pytest.raises(ValueError, match="alley.png: expected the exposures' size 70x60, got 71x60"):
        util_eval.score_scene(scene, {}, {"other": tmp_path})
    write_image(data / "alley" / "2.png", np.zeros((61, 70, 3), np.uint8))
    with pytest.raises(ValueError, match="2.png: expected the other exposures' size 70x60, got 70x61"):
        util_eval.score_scene(scene, {}, {"other": tmp_path})


def test_tables_have_means_worst_scenes_and_wins():
    values = {"a": (0.9, 0.8, 0.7), "b": (0.9, 0.85, 0.6)}
    rows = [
        {"scene": f"s{i}", "method": name, "mef_ssim": value} | {c.key: i for c in util_eval.FIDELITY[1:]}
        for name, scores in values.items()
        for i, value in enumerate(scores)
    ]
    rows[0]["viff"] = float("nan")
    lines = util_eval.fidelity_table(rows).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == ["a", "0.8000", "0.7000 (s2)", "2", "1.0000", "1.0000", "1.5000"]  # a tie in s0 counts for both
    assert cells[3] == ["b", "0.7833", "0.6000 (s2)", "2", "1.0000", "1.0000", "1.0000"]
    assert len({len(line) for line in lines}) == 1


def test_method_names():
    assert util_eval.named_path("runs/a/last.pth", {}) == ("last", "runs/a/last.pth")
    assert util_eval.named_path("mine=runs/a/last.pth", {"last"}) == ("mine", "runs/a/last.pth")
    with pytest.raises(ValueError, match="two methods are called last"):
        util_eval.named_path("runs/b/last.pth", {"last"})
    with pytest.raises(ValueError, match="must be that of a folder"):
        util_eval.named_path("../x=runs/b/last.pth", {})
    assert util_eval.picture_of(Path("x"), "s") == Path("x/s.png")
