"""The package: wheel, sdist and editable install in fresh environments, beside a project with its own `utils`."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import numpy as np
import pytest

import deepfuse
from configs import shipped_weights
from utils.evaluation.metric import matlab_gray, mef_ssim
from utils.fusing.fusion import Fuser
from utils.pictures.image import read_image

ROOT = Path(__file__).parents[1]
SAMPLE = [ROOT / f"data_test/courtyard/{name}.jpg" for name in ("0_ev-4", "2_ev+2")]
NOT_TRACKED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "data_result", "train_*", "venv")
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

WITHOUT = """
import importlib.util, runpy, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in ("torch", "skimage") else found(name)
sys.argv = ["run_eval.py"]
runpy.run_path("run_eval.py", run_name="__main__")
"""


def pip(*arguments):
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *quiet, *arguments], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a copy of the clone, and in `dist` the sdist and the wheel that is built from the sdist."""
    pytest.importorskip("build", reason="needs build: pip install -e '.[dev]'")
    pytest.importorskip("setuptools", minversion="77", reason="needs setuptools: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "clone", ignore=NOT_TRACKED)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "clone"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return folder


def install(what, folder):
    """Returns the Python of a new environment with the package; its dependencies are those of this environment."""
    pytest.importorskip("pip", reason="needs pip")
    venv.create(folder / "env")
    python = folder / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True
    )
    Path(where.stdout.decode().strip(), "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip("--python", python, "install", "--no-deps", "--no-index", "--no-build-isolation", *what)
    return python


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def installed(request, built, tmp_path_factory):
    (archive,) = (built / "dist").glob("*.whl" if request.param == "wheel" else "*.tar.gz")
    return install([archive], tmp_path_factory.mktemp(request.param))


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


def run(python, folder, *arguments):
    return subprocess.run([python, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.long
def test_the_command_is_the_scripts(installed, tmp_path):
    done = subprocess.run([installed.with_name("deepfuse" + installed.suffix)], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and (tmp_path / "data_result/pair/fused_image.png").is_file(), done.stderr
    for name in ("train", "eval"):
        done = run(installed, tmp_path, "-m", "deepfuse", name, "--help")
        assert "deepfuse" in done.stdout.splitlines()[0] and "--weights" in done.stdout
    done = run(installed, tmp_path, "-m", "deepfuse", "eval", "--data", "nowhere")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: nowhere")


@pytest.mark.long
def test_the_editable_install_is_the_clone(built, tmp_path):
    python = install(["-e", built / "clone"], tmp_path)
    named = run(python, tmp_path, "-c", "import deepfuse, utils; print(deepfuse.__file__, utils.__file__)").stdout
    assert named.split() == [str(built / "clone" / name / "__init__.py") for name in ("deepfuse", "utils")]
    done = run(python, tmp_path, "-m", "deepfuse", *SAMPLE, "-o", "fused.png")
    assert done.returncode == 0 and (tmp_path / "fused.png").is_file(), done.stderr


@pytest.mark.long
def test_no_module_of_the_package_asks_for_a_top_level_one(installed):
    (package,) = installed.parents[1].rglob("site-packages/deepfuse")
    sources = list(package.rglob("*.py"))
    assert {"run_infer.py", "fusion.py", "DeepFuse.py", "__main__.py"} <= {path.name for path in sources}
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.split(".")[0] for name in names} & {"configs", "models", "utils"}, path


@pytest.mark.long
def test_the_sdist_is_the_clone(built):
    with tarfile.open(next((built / "dist").glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    clone = {path.relative_to(built / "clone").as_posix() for path in (built / "clone").rglob("*") if path.is_file()}
    assert {name for name in clone if "egg-info" not in name} <= packed


def test_one_version():
    from deepfuse.__main__ import COMMANDS

    assert re.fullmatch(r"\d+\.\d+\.\d+", deepfuse.__version__)
    for script in ["run_infer.py", *(f"run_{name}.py" for name in COMMANDS)]:
        assert run(sys.executable, ROOT, script, "--version").stdout == f"DeepFuse {deepfuse.__version__}\n"
    assert run(sys.executable, ROOT, "-m", "deepfuse", "--version").stdout == f"DeepFuse {deepfuse.__version__}\n"


def test_a_command_names_all_packages_that_are_missing():
    done = run(sys.executable, ROOT, "-c", WITHOUT)
    assert done.stderr == "error: torch, scikit-image must be installed first: pip install torch scikit-image\n"


def test_requirements_are_those_of_the_package():
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert sorted(filter(None, lines)) == sorted(project["dependencies"] + extras["train"] + extras["test"])
