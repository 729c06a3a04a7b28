"""run_eval.py as a command line."""

import csv
import re
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
    assert re.search(r"error: 1 of 3 scenes are not in the scores. sunset: .*1_ev\+0.png: ", done.stderr)
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["net", "average", "mertens", "over"]
    assert [(row["scene"], row["method"]) for row in rows] == [(s, n) for s in ("city", "forest") for n in names]
    assert all(0 < float(row["mef_ssim"]) <= 1 for row in rows)
    report = (tmp_path / "out" / "results.md").read_text()
    assert report in done.stdout
    for phrase in ("2 scenes of data, 80x70 pixels", ": 3 a scene", "rgb2gray", "TIP 2015", "PyTorch", "| mertens"):
        assert phrase in report
    for scene in ("city", "forest"):
        assert cv2.imread(str(tmp_path / "out" / "sheets" / f"{scene}.png")) is not None
        assert cv2.imread(str(tmp_path / "out" / "pictures" / "net" / f"{scene}.png")).shape == (70, 80, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--methods", "--weights"], "there is no method"),
        (["--weights", "nothing.pth"], "nothing.pth"),
        (["--results", "pictures"], "must be NAME=DIR, got pictures"),
        (["--results", "a=nothing"], "nothing: no such folder of a's pictures"),
        (["--results", "average=tests"], "two methods are called average"),
        (["--results", "other=tests"], "no scene could be scored. city: .*city.png: no such file"),
        (["--reference", "nothing"], "nothing: no such folder of reference pictures"),
        (["--lpips"], "give --reference"),
    ],
)
def test_what_is_wrong_is_said(data, tmp_path, options, message):
    weights = [] if "--weights" in options else ["--weights"]
    args = get_eval_args(["--data", str(data), "--output", str(tmp_path), "--methods", "average", *weights, *options])
    with pytest.raises((ValueError, OSError), match=message):
        run_eval.main(args)
