"""run_export.py and utils/fusing/onnx.py: the same pictures as PyTorch's at every size and number, and without it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import configs
from models import fuse_model
from run_export import export
from utils.errors import UserError
from utils.fusing import onnx as onnx_files
from utils.fusing.fusion import Fuser
from utils.fusing.onnx import INPUT, OUTPUTS, OnnxNetwork
from utils.fusing.tiles import on_device
from utils.pictures.image import read_image

pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")
ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "runs/pretrained/deepfuse.onnx"
SAMPLE = [ROOT / f"data_test/courtyard/{name}.jpg" for name in ("0_ev-4", "1_ev+0", "2_ev+2")]
RNG = np.random.default_rng(0)
WITHOUT_PYTORCH = """
import runpy, sys
from pathlib import Path
for name in ("torch", "torchvision", "skimage", "scipy", "tensorboard"):
    sys.modules[name] = None  # importing it is an error, as where it is not installed
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def without_pytorch(*arguments, cwd):
    command = [sys.executable, "-c", WITHOUT_PYTORCH, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def assert_same_decisions(onnx, torch_network, stacks):
    for stack in stacks:
        for ours, theirs in zip(onnx.decide(stack), torch_network.decide(stack), strict=True):
            assert ours.shape == theirs.shape and ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1, np.abs(theirs).max()))


def stacks(counts, sizes):
    return [RNG.random((k, *size), np.float32) for k, size in zip(counts, sizes, strict=True)]


def test_the_shipped_file_decides_as_the_shipped_weights_do():
    network = on_device(fuse_model(weights=SHIPPED.with_suffix(".pth")))
    onnx = OnnxNetwork(SHIPPED)
    arch = network.model.arch
    assert (onnx.decision_pixels, onnx.exposures) == (arch.decision_pixels, arch.exposures)
    sizes = ((1, 1), (7, 300), (64, 64), (65, 129), (340, 512), (1, 2), (128, 3), (640, 480))
    assert_same_decisions(onnx, network, stacks((2, 3, 4, 5, 2, 9, 7, 2), sizes))


def test_a_pyramid_of_other_sizes_can_be_exported(pyramid, tmp_path):
    pytest.importorskip("onnxscript", reason="needs PyTorch's exporter: pip install onnxscript")
    export(pyramid, tmp_path / "out.onnx")
    onnx = OnnxNetwork(tmp_path / "out.onnx")
    assert_same_decisions(onnx, on_device(pyramid), stacks((2, 9, 3, 4), ((1, 1), (7, 300), (128, 128), (131, 90))))
    content = (tmp_path / "out.onnx").read_bytes()
    assert b"stack_trace" not in content and str(ROOT).encode() not in content  # no paths of this machine


def test_what_onnx_runtime_raises_is_of_the_same_kind_as_what_pytorch_does():
    for stack in (np.zeros((2, 3), np.float32), np.zeros((2, 4, 4))):  # another rank, another type
        with pytest.raises(RuntimeError, match="ONNX Runtime: "):
            OnnxNetwork(SHIPPED).decide(stack)


@pytest.mark.parametrize(
    "count, shape, dtype, darkest",
    [
        (2, (1, 1, 3), np.uint8, 0.3),
        (2, (7, 300), np.uint8, 0.02),  # a wide gap: the network sees virtual exposures, too
        (3, (65, 129, 3), np.uint16, 0.3),
        (9, (40, 64, 4), np.uint8, 0.02),
        (2, (420, 700, 3), np.uint8, 0.3),  # decided at a smaller size
    ],
)
def test_pictures_are_the_same_at_any_size_and_number(stack, count, shape, dtype, darkest):
    images = stack(count, shape, dtype, darkest)
    ours, theirs = (Fuser.from_checkpoint(SHIPPED.with_suffix(suffix)).fuse(images) for suffix in (".onnx", ".pth"))
    gray_level = np.iinfo(dtype).max // 255
    assert np.abs(ours.astype(int) - theirs).max() <= gray_level
    assert shape[0] == 1 or ours.std() > 20 * gray_level  # a picture


def test_pictures_are_the_same_without_pytorch(tmp_path):
    """The command, in a process that cannot import PyTorch, with its default weights."""
    done = without_pytorch(ROOT / "run_infer.py", *SAMPLE, "-o", "three.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fuser = Fuser.from_checkpoint(SHIPPED.with_suffix(".pth"))
    expected = fuser.fuse([read_image(path) for path in SAMPLE])
    assert np.abs(read_image(tmp_path / "three.png").astype(int) - expected).max() <= 1


def test_onnx_runtime_keeps_no_record_of_its_use_and_so_sends_none(tmp_path):
    """With its telemetry on, it makes a file for the session in the folder of temporary files."""
    place = {name: str(tmp_path) for name in ("TMPDIR", "TEMP", "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA")}
    without = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_DISABLE_TELEMETRY")  # these switch it off
    environment = {name: value for name, value in os.environ.items() if name not in without} | place
    code = f"from utils.fusing.onnx import OnnxNetwork; OnnxNetwork({str(SHIPPED)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    assert not list(tmp_path.rglob("*"))


def test_weights_for_pytorch_are_refused_without_it(tmp_path):
    done = without_pytorch(ROOT / "run_infer.py", "--weights", SHIPPED.with_suffix(".pth"), cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "torch" in done.stderr and ".onnx" in done.stderr


@pytest.mark.parametrize(
    "device, missing, suffix",
    [("auto", "", ".onnx"), ("cpu", "", ".onnx"), ("cuda", "", ".pth"), ("cpu", "onnxruntime", ".pth")],
)
def test_the_default_is_the_file_that_can_run(monkeypatch, device, missing, suffix):
    monkeypatch.setattr(configs, "find_spec", lambda name: name != missing)
    assert configs.get_infer_args(["--device", device]).weights == str(SHIPPED.with_suffix(suffix))


def test_networks_of_the_paper_are_refused(tmp_path):
    with pytest.raises(ValueError, match="only one that decides on a small copy"):
        export(fuse_model("DeepFuse_3x3"), tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_ours_are_refused(tmp_path):
    (tmp_path / "torn.onnx").write_bytes(SHIPPED.read_bytes()[:10_000])
    for path, error, match in (
        (tmp_path / "none.onnx", FileNotFoundError, "no such file"),
        (tmp_path / "torn.onnx", ValueError, "not a file that run_export.py wrote"),
    ):
        with pytest.raises(error, match=match):
            Fuser.from_checkpoint(path)
    with pytest.raises(ValueError, match="on the CPU"):
        Fuser.from_checkpoint(SHIPPED, device="cuda")
    with pytest.raises(ValueError, match="holds a DeepFuse_pyramid"):
        Fuser.from_checkpoint(SHIPPED, name="DeepFuse")
    strange = pytest.importorskip("onnx").load(SHIPPED)
    del strange.metadata_props[:]
    (tmp_path / "strange.onnx").write_bytes(strange.SerializeToString())
    with pytest.raises(ValueError, match="not a file that run_export.py wrote"):
        Fuser.from_checkpoint(tmp_path / "strange.onnx")


def graph(**changes):
    """The bytes of a small ONNX file of the shipped one's form: the mean, and equal weights; with `changes`."""
    onnx = pytest.importorskip("onnx")
    make, f32 = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [make.make_tensor_value_info(INPUT, f32, ["k", "h", "w"])]
    outputs = [make.make_tensor_value_info(name, f32, None) for name in changes.get("outputs", OUTPUTS)]
    nodes = [
        make.make_node("ReduceMean", [INPUT], ["fused"], axes=[0], keepdims=0),
        make.make_node("Softmax", [INPUT], ["weights"], axis=0),
    ]
    initial = []
    if "endless" in changes:  # the mean of what a loop leaves that goes on and on
        info = [make.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("go", 9), ("on", 9))]
        x, y = (make.make_tensor_value_info(name, f32, None) for name in "xy")
        steps = [make.make_node("Identity", ["go"], ["on"]), make.make_node("Identity", ["x"], ["y"])]
        body = make.make_graph(steps, "body", [*info[:2], x], [info[2], y])
        initial = [make.make_tensor("most", onnx.TensorProto.INT64, [], [2**62])]
        initial += [make.make_tensor("true", onnx.TensorProto.BOOL, [], [True])]
        nodes[0] = make.make_node("ReduceMean", ["last"], ["fused"], axes=[0], keepdims=0)
        nodes.insert(0, make.make_node("Loop", ["most", "true", INPUT], ["last"], body=body))
    inputs += [make.make_tensor_value_info("more", f32, [1])] if "more" in changes else []
    whole = make.make_graph(nodes, "graph", inputs, outputs, initial)
    model = make.make_model(whole, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    about = {"name": "DeepFuse_pyramid", "decision_pixels": "65536", "exposures": "5"} | changes.get("about", {})
    make.set_model_props(model, about)
    return model.SerializeToString()


def test_a_graph_of_our_form_is_run(tmp_path):
    (tmp_path / "a.onnx").write_bytes(graph())
    fused, weights = OnnxNetwork(tmp_path / "a.onnx").decide(np.full((2, 50, 60), 0.25, np.float32))
    assert np.allclose(fused, 0.25) and np.allclose(weights, 0.5)


@pytest.mark.parametrize(
    "changes",
    [
        *({"about": {"decision_pixels": pixels}} for pixels in ("-7", "0", "x", "", "9" * 9, "nan")),
        *({"about": {"exposures": count}} for count in ("17", "-1", "nan", "", "2.5")),
        {"outputs": ["fused"]},
        {"outputs": ["weights"]},
        {"more": True},
        {"endless": True},
    ],
    ids=str,
)
def test_numbers_and_graphs_that_no_network_has_are_refused(tmp_path, monkeypatch, changes):
    monkeypatch.setattr(onnx_files, "LONGEST_TRIAL", 1)
    (tmp_path / "a.onnx").write_bytes(graph(**changes))
    with pytest.raises(UserError, match="a.onnx is not a file that run_export.py wrote, or it is damaged"):
        OnnxNetwork(tmp_path / "a.onnx")


def test_an_export_lies_beside_its_weights_by_default():
    pytest.importorskip("onnxscript", reason="needs PyTorch's exporter: pip install onnxscript")
    assert configs.get_export_args(["--weights", "mine/best.pth"]).output == str(Path("mine/best.onnx"))
    assert Path(configs.get_export_args([]).output) == SHIPPED
