"""The installed package, beside another project that has its own `models` and `utils`; torch.hub."""

import ast
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import shipped_weights
from models import fuse_model
from utils.evaluation.metric import matlab_gray, mef_ssim
from utils.fusing.fusion import Fuser
from utils.pictures.image import read_image

ROOT = Path(__file__).parents[1]
SAMPLE = [ROOT / f"data_test/courtyard/{name}.jpg" for name in ("0_ev-4", "2_ev+2")]
PROJECT = """
import sys
import models, utils.tool
import deepfuse
import cv2
fused = deepfuse.fuse(sys.argv[1:])
cv2.imwrite("fused.png", fused)
print(deepfuse.mef_ssim(fused, [cv2.imread(path) for path in sys.argv[1:]]))
import models.own, utils
assert (models.WHOSE, models.own.WHOSE, utils.tool.WHOSE) == ("theirs",) * 3
assert sys.prefix in deepfuse.__file__, deepfuse.__file__
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Returns the Python of a new environment with the package; its dependencies are those of this environment."""
    pytest.importorskip("setuptools", minversion="77", reason="needs setuptools: pip install -r requirements-dev.txt")
    pytest.importorskip("pip", reason="needs pip")
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, clone(folder)]
    subprocess.run(build, check=True, stdin=subprocess.DEVNULL)
    venv.create(folder / "env")
    python = folder / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    (wheel,) = folder.glob("deepfuse-*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    (package,) = (folder / "env").rglob("site-packages/deepfuse")
    (package.parent / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def clone(folder):
    """Returns a copy of the clone to build from, since builders write into the folder that they build."""
    top = ("*.py", "*.toml", "*.md", "*.txt", "LICENSE")
    for pattern in (*top, "*/*.py", "utils/*/*.py", "runs/pretrained/*", "data_test/courtyard/*"):
        for path in ROOT.glob(pattern):
            target = folder / "clone" / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return folder / "clone"


@pytest.mark.long
def test_another_project_fuses_and_keeps_its_own_modules(installed, tmp_path):
    for name in ("models/__init__.py", "models/own.py", "utils/__init__.py", "utils/tool.py", "configs.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("WHOSE = 'theirs'\n")
    (tmp_path / "project.py").write_text(PROJECT)
    done = subprocess.run([installed, "project.py", *SAMPLE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    exposures = [read_image(path) for path in SAMPLE]
    expected = Fuser.from_checkpoint(shipped_weights()).fuse(exposures)
    np.testing.assert_array_equal(read_image(tmp_path / "fused.png"), expected)
    score = mef_ssim(matlab_gray(expected), np.stack([matlab_gray(image) for image in exposures]))
    assert float(done.stdout) == pytest.approx(score)


@pytest.mark.long
def test_the_commands_are_the_scripts(installed, tmp_path):
    def run(name, *arguments):
        command = [installed.with_name(name + installed.suffix), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = run("deepfuse")
    assert done.returncode == 0 and (tmp_path / "data_result/pair/fused_image.png").is_file(), done.stderr
    for name in ("deepfuse-train", "deepfuse-eval"):
        assert "--weights" in run(name, "--help").stdout
    done = run("deepfuse-eval", "--data", "nowhere")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: nowhere")


@pytest.mark.long
def test_no_module_of_the_package_asks_for_a_top_level_one(installed):
    (package,) = installed.parents[1].rglob("site-packages/deepfuse")
    sources = list(package.rglob("*.py"))
    assert {"run_infer.py", "fusion.py", "DeepFuse.py", "commands.py"} <= {path.name for path in sources}
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.split(".")[0] for name in names} & {"configs", "models", "utils"}, path


def test_torch_hub_gives_the_network_and_leaves_other_models_alone(monkeypatch):
    theirs = type(sys)("models")
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "models", theirs)
    network = torch.hub.load(str(ROOT), "deepfuse", source="local")
    assert sys.modules["models"] is theirs and "models.DeepFuse" not in sys.modules
    stack = torch.rand(1, 3, 1, 40, 50)
    monkeypatch.undo()
    with torch.inference_mode():
        expected = fuse_model(weights=ROOT / "runs/pretrained/deepfuse.pth").fuse(stack)
        torch.testing.assert_close(network.fuse(stack), expected)
