"""The evaluation's parts: scenes, methods, scores, the folder that it writes."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.evaluation import metric, scoring
from utils.evaluation.report import COLOUR, FIDELITY, LOOK, MEF_SSIM_FUSED, PROFILE, REFERENCE
from utils.pictures.image import read_image, write_image
from utils.pictures.scenes import Scene


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
    scenes = scoring.find_eval_scenes(data)
    assert [scene.name for scene in scenes] == ["alley", "beach"]
    assert [path.name for path in scenes[0].paths] == ["0.png", "1.png", "2.png"] == [p.name for p in scenes[0].stack]


@pytest.mark.parametrize(("full_stack", "scored"), [((), ["0.png", "1.png", "2.png"]), ((False,), ["0.png", "2.png"])])
def test_pairs_pick_scenes_and_exposures(data, tmp_path, full_stack, scored):
    table = tmp_path / "pairs.csv"
    table.write_text("\ufeffscene,note,under,over\nbeach,x,0.png,2.png\n", encoding="utf-8")
    (scene,) = scoring.find_eval_scenes(data, table, *full_stack)
    assert scene.name == "beach"
    assert [path.name for path in scene.paths] == ["0.png", "2.png"]
    assert sorted(path.name for path in scene.stack) == scored


def test_bad_tables_and_folders_say_what_was_expected(data, tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("scene,dark\nbeach,0.png\n")
    with pytest.raises(ValueError, match="rows with the columns scene, under, over"):
        scoring.find_eval_scenes(data, table)
    table.write_text("scene,under,over\nbeach,0.png,1.png\nbeach,0.png,2.png\n")
    with pytest.raises(ValueError, match="got 2 rows for 1 scenes"):
        scoring.find_eval_scenes(data, table)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        scoring.find_eval_scenes(tmp_path / "nothing")
    with pytest.raises(ValueError, match="found no folder"):
        scoring.find_eval_scenes(data / "beach")


def test_baselines_are_what_they_say():
    under, over = np.full((8, 8, 3), 10, np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert (scoring.average([under, over]) == 133).all()  # 132.5, rounded up
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (3, 40, 50, 3)).astype(np.uint8))
    expected = np.clip(np.rint(cv2.createMergeMertens().process(images) * 255), 0, 255)
    assert (scoring.mertens(images) == expected).all()


@pytest.mark.skipif(shutil.which("enfuse") is None, reason="enfuse is not installed")
def test_enfuse_runs(data):
    images = [read_image(path) for path in scoring.find_eval_scenes(data)[0].paths]
    assert scoring.enfuse(images).shape == images[0].shape
    assert "enfuse" in scoring.enfuse_version()
    with pytest.raises(ValueError, match="enfuse failed: "):
        scoring.enfuse([])


def test_a_scene_is_scored_as_saved(data, tmp_path):
    scene = scoring.find_eval_scenes(data)[0]
    folders = {"average": tmp_path / "pictures", "other": tmp_path / "other"}
    exposures = [read_image(path) for path in scene.paths]
    write_image(folders["other"] / "alley.png", exposures[1].astype(np.uint16) * 257)  # 16 bits, read as 8
    sheets = tmp_path / "sheets"
    shutil.copy(scene.paths[1], tmp_path / "alley.png")
    rows = scoring.score_scene(scene, {"average": scoring.average}, folders, reference=tmp_path, sheets=sheets)
    assert [(row["scene"], row["method"], row["fused"], row["exposures"]) for row in rows] == [
        ("alley", "average", 3, 3),
        ("alley", "other", 3, 3),
    ]
    stack = np.stack([metric.matlab_gray(x) for x in exposures])
    saved = read_image(folders["average"] / "alley.png")
    assert (saved == scoring.average(exposures)).all()
    assert rows[0]["mef_ssim"] == metric.mef_ssim(metric.matlab_gray(saved), stack)
    assert rows[1]["mef_ssim_lum"] == metric.mef_ssim_lum(stack[1], stack)
    assert rows[1]["psnr"] == np.inf and rows[1]["ssim"] == pytest.approx(1)
    assert rows[0]["mef_ssim_fused"] == rows[0]["mef_ssim"]
    columns = (*FIDELITY, MEF_SSIM_FUSED, *COLOUR, *PROFILE, *LOOK, *REFERENCE)
    described = {"scene", "method", "fused", "exposures", "width", "height"}
    assert described | {column.key for column in columns} == set(rows[0])
    sheet = read_image(sheets / "alley.png")
    assert sheet.shape[1] > 900 and sheet.shape[0] > 400


def test_a_pair_is_scored_against_the_shots_it_has_not_seen(data, tmp_path):
    shots = [read_image(data / "alley" / f"{i}.png") for i in range(3)]
    gray = [metric.matlab_gray(x) for x in shots]
    pair = Scene("alley", *((tuple(data / "alley" / f"{i}.png" for i in order)) for order in ((2, 0), (2, 0, 1))))
    (row,) = scoring.score_scene(pair, {"average": scoring.average}, {"average": tmp_path})
    saved = scoring.average([shots[0], shots[2]])
    assert (read_image(tmp_path / "alley.png") == saved).all()
    assert (row["fused"], row["exposures"]) == (2, 3)
    picture = metric.matlab_gray(saved)
    assert row["mef_ssim"] == pytest.approx(metric.mef_ssim(picture, np.stack(gray)), abs=1e-12)
    assert row["mef_ssim_fused"] == pytest.approx(metric.mef_ssim(picture, np.stack(gray[::2])), abs=1e-12)
    assert row["mef_ssim_lum"] == pytest.approx(metric.mef_ssim_lum(picture, np.stack(gray)), abs=1e-12)
    colours = tuple(row[key] for key in ("colour_difference", "hue_error", "saturation"))
    assert colours == metric.colour_errors(saved, shots[1:2]) != metric.colour_errors(saved, shots)


def test_wide_pictures_are_shrunk_before_they_are_fused(data, tmp_path):
    scene = scoring.find_eval_scenes(data)[0]
    write_image(tmp_path / "other" / "alley.png", read_image(scene.paths[0]))
    folders = {"average": tmp_path / "average", "other": tmp_path / "other"}
    rows = scoring.score_scene(scene, {"average": scoring.average}, folders, tmp_path / "other", max_width=64)
    assert all((row["width"], row["height"]) == (64, 55) for row in rows)
    assert rows[1]["psnr"] == np.inf
    small = [cv2.resize(read_image(path), (64, 55), interpolation=cv2.INTER_AREA) for path in scene.paths]
    assert (read_image(tmp_path / "average" / "alley.png") == scoring.average(small)).all()
    wide = read_image(scene.paths[0])
    assert (scoring.read_8bit(scene.paths[0], wide.shape[1]) == wide).all()


def test_reference_scores_are_ntires(data, monkeypatch):
    monkeypatch.setattr(metric, "load_lpips", lambda: lambda image, reference: 0.1)
    a, b = (read_image(data / "alley" / f"{i}.png") for i in (0, 1))
    row = scoring.reference_scores(a, b, lpips=True)
    assert row["ntire"] == pytest.approx(0.6 * row["psnr"] + 45 * row["ssim"] - 22.5 + 30 * 0.75)


def test_wrong_sizes_are_named(data, tmp_path):
    scene = scoring.find_eval_scenes(data)[0]
    with pytest.raises(FileNotFoundError, match="alley.png: no such file"):
        scoring.score_scene(scene, {}, {"other": tmp_path})
    write_image(tmp_path / "alley.png", np.zeros((60, 71, 3), np.uint8))
    with pytest.raises(ValueError, match="alley.png: expected the exposures' size 70x60, got 71x60"):
        scoring.score_scene(scene, {}, {"other": tmp_path})
    write_image(data / "alley" / "2.png", np.zeros((61, 70, 3), np.uint8))
    with pytest.raises(ValueError, match="2.png: expected the exposures' size 70x60, got 70x61"):
        scoring.score_scene(scene, {}, {"other": tmp_path})


def test_only_an_evaluations_own_folder_is_emptied(data, tmp_path):
    output = tmp_path / "out"
    scoring.clear_output(output, {"weights": "x"}, [data])
    write_image(output / "pictures" / "old" / "alley.png", np.zeros((9, 9, 3), np.uint8))
    write_image(output / "sheets" / "alley.png", np.zeros((9, 9, 3), np.uint8))
    for name in (*scoring.RESULTS, "mine.txt"):
        (output / name).touch()
    scoring.clear_output(output, {}, [data])
    assert sorted(path.name for path in output.iterdir()) == ["evaluation.json", "mine.txt"]

    write_image(tmp_path / "holiday" / "pictures" / "beach.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="holds pictures/ or sheets/ but no evaluation.json"):
        scoring.clear_output(tmp_path / "holiday", {}, [data])
    assert (tmp_path / "holiday" / "pictures" / "beach.png").is_file()


@pytest.mark.parametrize("output", ["data", "data/alley/out", "."])
def test_nothing_is_written_where_something_is_read(data, tmp_path, output):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="lie in each other: choose another --output"):
        scoring.clear_output(tmp_path / output, {}, [tmp_path / "elsewhere", data])
    assert sorted(tmp_path.rglob("*")) == before


def test_other_suffixes_are_found(tmp_path):
    assert scoring.picture_of(Path("x"), "s") == Path("x/s.png")
    write_image(tmp_path / "s.tif", np.zeros((9, 9, 3), np.uint8))
    assert scoring.picture_of(tmp_path, "s") == tmp_path / "s.tif"
