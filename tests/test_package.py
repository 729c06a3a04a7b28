"""The package: wheel, sdist and editable install in fresh environments, beside a project with its own `utils`."""

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import deepfuse
from configs import shipped_weights
from models import read_checkpoint
from utils.evaluation.metric import matlab_gray, mef_ssim
from utils.fusing.fusion import Fuser
from utils.pictures.image import read_image, write_image
from utils.training.loss import MEFLoss

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
def test_the_archives_are_the_clone(built):
    with tarfile.open(next((built / "dist").glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    clone = {path.relative_to(built / "clone").as_posix() for path in (built / "clone").rglob("*") if path.is_file()}
    assert {name for name in clone if "egg-info" not in name} <= packed
    with zipfile.ZipFile(next((built / "dist").glob("*.whl"))) as archive:
        packed = {name.removeprefix("deepfuse/") for name in archive.namelist()}
    assert {name for name in clone if name.startswith(("utils/", "models/", "run_"))} <= packed


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


@pytest.mark.parametrize("moving", [{}, {"align": "mtb"}, {"align": "mtb", "deghost": True, "reference": "1_ev+0.jpg"}])
def test_fuse_of_files_is_what_the_scripts_write(tmp_path, moving):
    paths = [ROOT / f"data_test/courtyard/{name}.jpg" for name in ("0_ev-4", "1_ev+0", "2_ev+2")]
    Fuser.from_checkpoint(shipped_weights()).fuse_files(paths, tmp_path / "fused.png", **moving)
    expected = read_image(tmp_path / "fused.png")
    np.testing.assert_array_equal(deepfuse.fuse(paths, **moving), expected)
    if moving.get("reference"):
        np.testing.assert_array_equal(deepfuse.fuse(paths, **{**moving, "reference": 1}), expected)
        pictures = [read_image(path) for path in paths]  # without the exposures that the files note
        assert deepfuse.fuse(pictures, **{**moving, "reference": 1}).shape == expected.shape


@pytest.mark.parametrize("channels", [3, 4])
def test_rgb_is_bgr_backwards(stack, tmp_path, channels):
    order = [2, 1, 0, 3][:channels]
    shots = stack(shape=(90, 117, channels))
    expected = deepfuse.fuse(shots)
    np.testing.assert_array_equal(deepfuse.fuse([x[..., order] for x in shots], rgb=True), expected[..., order])
    for k, shot in enumerate(shots):
        write_image(tmp_path / f"{k}.png", shot)
    files = sorted(tmp_path.glob("*.png"))
    np.testing.assert_array_equal(deepfuse.fuse(files, rgb=True), deepfuse.fuse(files)[..., order])


def test_a_radiance_map_is_fused_alone(tmp_path, rng):
    radiance = np.exp(rng.normal(0, 2, (60, 70, 3))).astype(np.float32)
    cv2.imwrite(str(tmp_path / "map.hdr"), radiance)
    assert deepfuse.fuse(tmp_path / "map.hdr").shape == radiance.shape
    with pytest.raises(ValueError, match="radiance map .* fuse it alone"):
        deepfuse.fuse([SAMPLE[0], tmp_path / "map.hdr"])


@pytest.mark.parametrize(
    "images, message",
    [
        ([SAMPLE[0], SAMPLE[0]], "given twice"),
        (SAMPLE[:1], "two or more"),
        ([SAMPLE[0], np.zeros((60, 70, 3), np.uint8)], "not mixed"),
        ([Image.new("RGB", (70, 60))] * 2, "PIL Image: give np.asarray"),
        ([torch.zeros(3, 60, 70)] * 2, "torch Tensor: give .*permute"),
        ([np.zeros((60, 70, 3), np.float32)] * 2, "uint8 or uint16, got .* float32"),
        (np.zeros((2, 60, 70, 3), np.uint8), "a list of pictures"),
        ([None, None], "cv2.imread gives None"),
        ([SAMPLE[0], "nowhere.jpg"], "nowhere.jpg"),
    ],
)
def test_fuse_names_what_it_refuses(images, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        deepfuse.fuse(images)


def test_fuse_refuses_shots_that_were_turned_differently(tmp_path):
    for k, orientation in enumerate((1, 3)):
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(np.full((60, 70, 3), 90 + k, np.uint8)).save(tmp_path / f"{k}.jpg", exif=exif)
    with pytest.raises(ValueError, match="EXIF orientation 3, but .* has 1"):
        deepfuse.fuse(sorted(tmp_path.glob("*.jpg")))


@pytest.mark.parametrize("wrong", [{"reference": 0}, {"reference": 5, "deghost": True}, {"align": "turn"}])
def test_fuse_refuses_wrong_options(stack, wrong):
    with pytest.raises(ValueError, match="reference|turn"):
        deepfuse.fuse(stack(), **wrong)


def test_the_loss_is_there_and_nothing_else():
    assert deepfuse.MEFLoss is MEFLoss
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = deepfuse.nothing


def test_neither_importing_nor_fusing_changes_other_libraries():
    code = """
import logging, sys, warnings, cv2, numpy as np, PIL.Image
def state():
    opencv = cv2.utils.logging.getLogLevel(), cv2.getNumThreads()
    return opencv, PIL.Image.MAX_IMAGE_PIXELS, list(warnings.filters), np.geterr(), logging.root.level
before = state()
import deepfuse
assert state() == before, "importing"
assert "torch" not in sys.modules
deepfuse.fuse(sys.argv[1:])
assert state() == before, "fusing"
"""
    done = run(sys.executable, ROOT, "-c", code, *SAMPLE)
    assert done.returncode == 0, done.stderr


def test_the_notebook_runs(tmp_path):
    cells = json.loads((ROOT / "contrib/tour.ipynb").read_text(encoding="utf-8"))["cells"]
    assert len(cells) == 10
    (tmp_path / "IPython").mkdir()
    (tmp_path / "IPython/__init__.py").touch()
    (tmp_path / "IPython/display.py").write_text(
        "def Image(data): return len(data)\ndef display(size): print('shown', size)\n"
    )
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    done = run(sys.executable, ROOT, "-c", f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{code}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("shown") == 3
    before, *_, after = map(float, re.findall(r"\d\.\d+", done.stdout.split("after two:")[1]))
    assert after < before  # two steps have taught it something


DARKTABLE = """
local widget = function(kind) return function(fields) return fields end end
package.loaded.darktable = {
    configuration = { running_os = "linux" },
    preferences = { register = function() end, read = function() return COMMAND end },
    new_widget = widget,
    print = function(text) said = text end,
    control = { execute = function(line) local _, _, status = os.execute(line); return status end },
    database = { import = function(path)
        imported = path
        return { group_with = function(_, with) leader = with end }
    end },
    register_storage = function(_, _, store, finish, takes) storage = { store, finish, takes } end,
}
"""


def test_darktable_exports_fuses_and_imports(tmp_path):
    lua = pytest.importorskip("lupa.lua54", reason="needs Lua: pip install lupa").LuaRuntime()
    lua.globals().COMMAND = f"PYTHONPATH={ROOT} {sys.executable} -m deepfuse"
    lua.execute(DARKTABLE)
    lua.execute((ROOT / "contrib/darktable.lua").read_text(encoding="utf-8"))
    (tmp_path / "it's here").mkdir()
    (tmp_path / "it's here/b_fused.jpg").touch()  # an earlier result
    shots = lua.table()
    for name, path in zip(("c.raw", "b.raw"), SAMPLE, strict=True):
        exported = tmp_path / f"export {name[0]}.jpg"
        shutil.copyfile(path, exported)
        shots[lua.table(path=str(tmp_path / "it's here"), filename=name)] = str(exported)
    _, fuse, takes = lua.globals().storage.values()
    assert takes(None, lua.table(plugin_name="tiff")) and not takes(None, lua.table(plugin_name="exr"))
    fuse(None, shots)
    result = tmp_path / "it's here/b_fused_2.jpg"
    assert lua.globals().imported == str(result) and lua.globals().leader.filename == "b.raw", lua.globals().said
    Fuser.from_checkpoint(shipped_weights()).fuse_files(SAMPLE[::-1], tmp_path / "expected.jpg")
    np.testing.assert_array_equal(read_image(result), read_image(tmp_path / "expected.jpg"))
    assert not list(tmp_path.glob("export*"))  # what was exported is gone


def test_the_image_copies_what_the_package_packs():
    lines = (ROOT / "contrib/Dockerfile").read_text(encoding="utf-8").splitlines()
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT")]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"{json.loads(entry.split(' ', 1)[1])[0]} = " in project.partition("[project.scripts]")[2]
    for extra in re.search(r"\[([\w,]+)\]", "".join(line for line in lines if "pip install" in line))[1].split(","):
        assert f"\n{extra} = [" in project.partition("[project.optional-dependencies]")[2]


def test_the_shipped_weights_have_this_version():
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
    files = sorted((ROOT / "runs/pretrained").glob("*.pth"))
    versions = {path.name: read_checkpoint(path).get("version") for path in files}
    session = onnxruntime.InferenceSession(ROOT / "runs/pretrained/deepfuse.onnx")
    versions["deepfuse.onnx"] = session.get_modelmeta().custom_metadata_map.get("version")
    assert set(versions.values()) == {deepfuse.__version__}, f"{versions}: see 'A release' in CONTRIBUTING.md"
    card = (ROOT / "runs/pretrained/MODEL_CARD.md").read_text(encoding="utf-8")
    assert "`deepfuse.onnx`" in card
    for path in files:
        parameters = sum(value.numel() for value in read_checkpoint(path)["model"].values())
        assert re.search(rf"`{path.name}`.*\| {parameters:,} \|", card), f"{path.name} has {parameters:,} parameters"
