"""run_eval.py as a command line."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

import run_eval
from configs import get_eval_args
from models import fuse_model
from models.DeepFuse import ARCHITECTURES
from utils.evaluation import metric
from utils.pictures.scenes import Scene

ROOT = Path(__file__).parents[1]


@pytest.fixture
def data(tmp_path):
    """Three scenes cut from the sample brackets; one of them has a text file for a picture."""
    for scene in ("city", "forest", "sunset"):
        (tmp_path / "data" / scene).mkdir(parents=True)
        for path in (ROOT / "data_test" / scene).glob("*.jpg"):
            cv2.imwrite(str(tmp_path / "data" / scene / f"{path.stem}.png"), cv2.imread(str(path))[100:170, 300:380])
    (tmp_path / "data" / "sunset" / "1_ev+0.png").write_text("not a picture")
    return tmp_path / "data"


@pytest.mark.long
def test_the_command_scores_all_but_the_bad_scene(data, tmp_path):
    torch.manual_seed(0)
    model = fuse_model("DeepFuse_3x3")
    checkpoint = {"name": model.name, "arch": vars(ARCHITECTURES[model.name]), "model": model.state_dict()}
    torch.save(checkpoint, tmp_path / "net.pth")
    others = tmp_path / "others"
    others.mkdir()
    for scene in ("city", "forest", "sunset"):
        (others / f"{scene}.png").write_bytes((data / scene / "2_ev+2.png").read_bytes())
    command = [sys.executable, "run_eval.py", "--data", data, "--output", tmp_path / "out", "--jobs", 2]
    command += ["--weights", tmp_path / "net.pth", "--methods", "average", "mertens", "--results", f"over={others}"]
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(
        r"error: sunset: .*1_ev\+0.png: .*\nerror: 1 of 3 scenes are not in the scores, see above", done.stderr
    )
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["net", "average", "mertens", "over"]
    assert [(row["scene"], row["method"]) for row in rows] == [(s, n) for s in ("city", "forest") for n in names]
    assert all(0 < float(row["mef_ssim"]) <= 1 for row in rows)
    report = (tmp_path / "out" / "results.md").read_text()
    assert report in done.stdout
    assert (
        "2 scenes of data, 80x70 pixels\n- fused: 3 shots per scene; scored against the shots that were fused (3)"
        in report
    )
    for phrase in (
        "rgb2gray",
        "TIP 2015",
        "PyTorch",
        "| mertens",
        "Colour against the best exposed of the shots at each",
    ):
        assert phrase in report
    assert (tmp_path / "out" / "results.tex").read_text().count(r"\begin{tabular}") == report.count(":\n\n|") == 5
    for scene in ("city", "forest"):
        assert cv2.imread(str(tmp_path / "out" / "sheets" / f"{scene}.png")) is not None
        assert cv2.imread(str(tmp_path / "out" / "pictures" / "net" / f"{scene}.png")).shape == (70, 80, 3)


def arguments(data, output, *options):
    weights = [] if "--weights" in options else ["--weights"]
    methods = [] if "--methods" in options else ["--methods", "average"]
    return get_eval_args(["--data", str(data), "--output", str(output), *methods, *weights, *map(str, options)])


def test_pairs_say_what_they_are_scored_against(data, tmp_path, capsys):
    table = tmp_path / "pairs.csv"
    table.write_text("scene,under,over\ncity,0_ev-4.png,2_ev+2.png\n")
    run_eval.main(arguments(data, tmp_path / "full", "--pairs", table))
    full = capsys.readouterr().out
    assert "- fused: 2 shots per scene; scored against all shots of the scene (3)" in full
    assert "Fidelity to all shots of the scene (3), mean" in full and "| pair alone |" in full
    run_eval.main(arguments(data, tmp_path / "pair", "--pairs", table, "--no-full-stack"))
    pair = capsys.readouterr().out
    assert "scored against the shots that were fused (2)" in pair and "pair alone" not in pair
    with open(tmp_path / "full" / "results.csv") as a, open(tmp_path / "pair" / "results.csv") as b:
        (full,), (pair,) = csv.DictReader(a), csv.DictReader(b)
    assert float(full["mef_ssim_fused"]) == pytest.approx(float(pair["mef_ssim"]), abs=1e-12)
    assert full["mef_ssim"] != pair["mef_ssim"]


def test_pictures_of_an_earlier_evaluation_go(data, tmp_path):
    for path in data.glob("sunset"):
        shutil.rmtree(path)
    run_eval.main(arguments(data, tmp_path / "out", "--methods", "average", "mertens"))
    kept = tmp_path / "out" / "pictures" / "average"
    with pytest.raises(ValueError, match="lie in each other"):  # else they would be gone before they are scored
        run_eval.main(arguments(data, tmp_path / "out", "--results", f"old={kept}"))
    assert (kept / "city.png").is_file()
    run_eval.main(arguments(data, tmp_path / "out", "--max_width", "50"))
    assert [path.name for path in (tmp_path / "out" / "pictures").iterdir()] == ["average"]
    settings = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert settings["max_width"] == 50 and "commit" in settings
    assert (
        "2 scenes of data, 50x44 pixels; wider ones were shrunk to 50" in (tmp_path / "out" / "results.md").read_text()
    )


def test_measures_of_other_packages_get_columns(data, tmp_path, monkeypatch, capsys):
    measures = {"musiq": (lambda image: image[0, 0, 0], False), "niqe": (lambda image: 255 - image[0, 0, 0], True)}
    monkeypatch.setattr(metric, "load_iqa", measures.get)
    monkeypatch.setattr(metric, "load_lpips", lambda: lambda image, reference: 0.2)
    for path in (data / "city").glob("1*"):
        shutil.copy(path, data / "city.png")
    table = tmp_path / "pairs.csv"
    table.write_text("scene,under,over\ncity,0_ev-4.png,2_ev+2.png\n")
    options = ["--pairs", table, "--iqa", "musiq", "niqe", "--reference", data, "--lpips"]
    run_eval.main(arguments(data, tmp_path / "out", *options))
    report = capsys.readouterr().out
    assert "Without a reference:\n\n| method  |" in report and "Against the reference pictures:" in report
    assert "- musiq: without a reference; higher is better\n- niqe: without a reference; lower is better" in report
    with open(tmp_path / "out" / "results.csv") as file:
        (row,) = csv.DictReader(file)
    corner = cv2.imread(str(tmp_path / "out" / "pictures" / "average" / "city.png"))[0, 0, 0]
    assert (float(row["musiq"]), float(row["niqe"]), float(row["lpips"])) == (corner, 255 - corner, 0.2)
    assert row["ntire"] and row["psnr"]


def score_or_die(scene):
    """Stands for score_scene where a scene takes more memory than there is."""
    if scene.name == "huge":
        os.kill(os.getpid(), signal.SIGKILL)
    return ([{"scene": scene.name}], None) if scene.name != "odd" else ([], "odd: broken")


@pytest.mark.long
def test_of_a_killed_process_each_scene_without_scores_is_named():
    scenes = [Scene(name, (), ()) for name in ("first", "odd", "huge", "third", "last")]
    rows, faults = run_eval.score_all(score_or_die, scenes, jobs=2)
    named = {fault.split(":")[1].strip() for fault in faults if "not scored, since a process was killed" in fault}
    assert "huge" in named and named.isdisjoint(row["scene"] for row in rows)
    assert named | {row["scene"] for row in rows} | {"odd"} == {scene.name for scene in scenes}
    assert run_eval.score_all(score_or_die, scenes[:2], jobs=2) == ([{"scene": "first"}], ["odd: broken"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--max_width", "43"], "--max_width must be at least 44, got 43"),
        (["--methods", "--weights"], "there is no method"),
        (["--methods", "median"], "invalid choice"),
        (["--results", "pictures"], "--results must be NAME=DIR, got 'pictures'"),
        (["--results", "a="], "--results must be NAME=DIR, got 'a='"),
        (["--weights", "a="], "--weights must be [NAME=]FILE, got 'a='"),
        (["--results", "average=tests"], "two methods are called average"),
        (["--results", "Average=tests"], "two methods are called Average"),  # one folder, where a disk ignores case
        (["--results", "a=tests", "a=utils"], "two methods are called a: give NAME=utils with another name"),
        (["--weights", "a/x.pth", "b/x.pth"], "two methods are called x: give NAME=b/x.pth with another name"),
        (["--weights", "../x=a.pth"], "must be that of a folder, got '../x'"),
        (["--lpips"], "give --reference"),
    ],
)
def test_wrong_usage_has_one_exit_status(data, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        arguments(data, tmp_path, *options)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1


def test_methods_are_named_after_files_and_runs(data, tmp_path):
    files = ["deepfuse.pth", "runs/train_11-25_13-00/checkpoints/best.pth", "mine=runs/x/checkpoints/best.pth"]
    names = ["deepfuse", "train_11-25_13-00_best", "mine"]
    paths = [*files[:2], "runs/x/checkpoints/best.pth"]
    assert arguments(data, tmp_path, "--weights", *files).weights == dict(zip(names, paths, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "nothing.pth"], "nothing.pth"),
        (["--results", "a=nothing"], "nothing: no such folder of pictures for --results"),
        (["--results", "other=tests"], "no scene could be scored, see above"),
        (["--reference", "nothing"], "nothing: no such folder of pictures for --reference"),
        (["--reference", "tests", "--lpips"], "LPIPS needs the package lpips: pip install lpips"),
        (["--iqa", "musiq"], "musiq needs the package pyiqa: pip install pyiqa"),
    ],
)
def test_what_is_wrong_is_said(data, tmp_path, monkeypatch, options, message):
    for package in ("lpips", "pyiqa"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises((ValueError, OSError), match=message):
        run_eval.main(arguments(data, tmp_path / "out", *options))
