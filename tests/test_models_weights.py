"""Weights of three kinds: loaded exactly, told apart by content, refused with one clear line."""

import os
import pickle
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d

from models import NETWORKS, fuse_model
from utils.evaluation.metric import matlab_gray, mef_ssim, mef_ssim_lum
from utils.evaluation.scoring import average, mertens
from utils.fusing.fusion import Fuser
from utils.pictures.image import read_image
from utils.training.train import new_training, save_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
AUTHORS = SHARED / "authors_release"
PREDECESSOR = SHARED / "predecessor" / "epoch024-loss0.213.pth"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def archive(tmp_path, rng):
    """A file of the authors' form, and its kernels."""
    shapes = [(32, 1, 3, 3), (64, 32, 5, 5), (64, 64, 7, 7), (32, 64, 5, 5), (16, 32, 5, 5), (1, 16, 7, 7)]
    kernels = [rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32) for shape in shapes]
    path = tmp_path / "authors.npz"
    np.savez(path, *kernels)
    return path, kernels


def predecessor_state(rng, image_channels=1):
    sizes = [(image_channels, 16, 5), (16, 32, 7), (32, 32, 7), (32, 16, 5), (16, image_channels, 5)]
    state = {}
    for layer, (c_in, c_out, k) in zip(("layer1", "layer2", "layer4", "layer5", "layer6"), sizes, strict=True):
        values = {
            "0.weight": rng.normal(0, 0.1, (c_out, c_in, k, k)),
            "0.bias": rng.normal(0, 0.1, c_out),
            "1.weight": rng.uniform(0.5, 1.5, c_out),
            "1.bias": rng.normal(0, 0.1, c_out),
            "1.running_mean": rng.normal(0, 0.1, c_out),
            "1.running_var": rng.uniform(0.5, 1.5, c_out),
        }
        state |= {f"{layer}.layer.{key}": torch.tensor(value, dtype=torch.float32) for key, value in values.items()}
        state[f"{layer}.layer.1.num_batches_tracked"] = torch.tensor(7)
    return state


def predecessor_output(state, y1, y2):
    """The predecessor's network, written out from its layers."""

    def layer(x, name, last=False):
        get = lambda key: state[f"{name}.layer.{key}"]  # noqa: E731
        x = F.conv2d(x, get("0.weight"), get("0.bias"), padding=get("0.weight").shape[-1] // 2)
        x = (x - get("1.running_mean")[:, None, None]) / (get("1.running_var")[:, None, None] + 1e-5).sqrt()
        x = x * get("1.weight")[:, None, None] + get("1.bias")[:, None, None]
        return torch.sigmoid(x) if last else F.leaky_relu(x, 0.01)

    x1, x2 = (layer(layer(y, "layer1"), "layer2") for y in (y1, y2))
    return layer(layer(layer(x1 + x2, "layer4"), "layer5"), "layer6", last=True)


def test_authors_archive_is_a_true_convolution(archive, rng):
    path, kernels = archive
    model = fuse_model(weights=path)
    y1, y2 = rng.random((2, 14, 12))

    def layer(x, kernel):
        total = [sum(convolve2d(a, k, "same") for a, k in zip(x, row, strict=True)) for row in kernel]
        return np.where(np.array(total) > 0, total, 0.01 * np.array(total))

    features = sum(layer(layer(y[None], kernels[0]), kernels[1]) for y in (y1, y2))
    for kernel in kernels[2:]:
        features = layer(features, kernel)
    with torch.no_grad():
        y_hat = model(torch.tensor(np.stack([y1, y2]), dtype=torch.float32)[None, :, None])
    assert model.name == "DeepFuse_authors"
    np.testing.assert_allclose(y_hat[0].numpy(), features, atol=1e-4)


@pytest.mark.parametrize("name", ["forth4", "montsaint", "stream1"])
def test_authors_release_gives_the_authors_pictures(name):
    if not AUTHORS.is_dir():
        pytest.skip("the authors' release is not here (../shared/data/authors_release)")
    model = fuse_model(weights=AUTHORS / "DF_model_Epoch99.npz")
    inputs = read_image(AUTHORS / "inputs" / f"{name}.png")  # BGR: red is over-exposed, green and blue under-exposed
    output = read_image(AUTHORS / "outputs" / f"{name}.png")[..., 0]
    box = np.s_[300:480, 300:480]
    pair = torch.from_numpy(inputs[box][..., [0, 2]].transpose(2, 0, 1) / np.float32(255))[None, :, None]
    with torch.no_grad():
        y_hat = model(pair)[0, 0, 13:-13, 13:-13].numpy().ravel()
    expected = output[box][13:-13, 13:-13].ravel().astype(np.float64)
    # Their picture is stretched by the minimum and maximum of the whole: a linear map, fitted here.
    line = np.polyfit(y_hat, expected, 1)
    assert np.abs(np.polyval(line, y_hat) - expected).mean() < 0.3


@pytest.mark.parametrize("wrapped", [True, False])
def test_predecessor_form(tmp_path, rng, wrapped):
    state = predecessor_state(rng)
    path = tmp_path / "epoch024-loss0.213.pth"
    torch.save({"epoch": 24, "model": state, "best_loss": np.float64(0.2)} if wrapped else state, path)
    model = fuse_model(weights=path)
    pair = torch.tensor(rng.random((1, 2, 1, 20, 17)), dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(model(pair), predecessor_output(state, *pair[0, :, None]), atol=1e-5, rtol=1e-5)
    assert model.name == "DeepFuse_bn" and not model.training


def test_predecessor_file():
    if not PREDECESSOR.is_file():
        pytest.skip("the predecessor's checkpoint is not here (../shared/data/predecessor)")
    model = fuse_model(weights=PREDECESSOR)
    scalars = [(np._core.multiarray.scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype("float64"))]
    with torch.serialization.safe_globals(scalars):
        state = torch.load(PREDECESSOR, weights_only=True)["model"]
    pair = torch.rand(1, 2, 1, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(model(pair), predecessor_output(state, *pair[0, :, None]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name, image_channels", [(name, 1) for name in NETWORKS] + [("DeepFuse", 3)])
def test_own_checkpoint_rebuilds_the_network_from_the_file_alone(tmp_path, name, image_channels):
    model = fuse_model(name, image_channels=image_channels)
    save_checkpoint(tmp_path / "last.pth", new_training(model, lr=1e-3))
    again = fuse_model(weights=tmp_path / "last.pth")
    pair = torch.rand(1, 2, image_channels, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(model(pair), again(pair), atol=1e-4, rtol=0)  # another memory layout
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert (again.name, again.arch, again.training) == (name, model.arch, False)


class Evil:
    def __reduce__(self):
        return open, ("ran", "w")  # noqa: SIM115


def write_bad(path, kind, rng):
    if kind == "text":
        path.write_text("not weights at all")
    elif kind == "empty":
        path.touch()
    elif kind == "noise":
        path.write_bytes(rng.bytes(3000))
    elif kind == "pickled code":
        torch.save({"model": Evil()}, path)
    elif kind == "plain pickle of code":
        path.write_bytes(pickle.dumps({"model": Evil()}, protocol=2))
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "stranger":
        torch.save({"state_dict": {"conv.weight": torch.zeros(3)}}, path)
    elif kind == "no state":
        torch.save({"model": 3}, path)
    elif kind == "objects":
        np.savez(path.with_suffix(".npz"), arr_0=np.array([{}], dtype=object))
        path.with_suffix(".npz").replace(path)
    elif kind == "other arrays":
        with path.open("wb") as file:
            np.savez(file, arr_0=np.zeros((3, 3), np.float32))
    else:
        model = fuse_model("DeepFuse_3x3")
        save_checkpoint(path, new_training(model, lr=1e-3))
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:5000])
        elif kind == "other weights":
            checkpoint = torch.load(path, weights_only=True)
            torch.save(checkpoint | {"model": fuse_model("DeepFuse").state_dict()}, path)
        elif kind == "unknown network":
            torch.save(torch.load(path, weights_only=True) | {"name": "DeepFuse_9x9"}, path)
        elif kind == "no name":
            torch.save(torch.load(path, weights_only=True) | {"name": ["DeepFuse"]}, path)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("text", "not a checkpoint"),
        ("empty", "not a checkpoint"),
        ("noise", "not a checkpoint"),
        ("truncated", "not a checkpoint, or it is damaged"),
        ("pickled code", "Python code"),
        ("plain pickle of code", "not a checkpoint"),
        ("tensor", "holds a Tensor"),
        ("stranger", "not a known kind of checkpoint"),
        ("no state", "not a known kind of checkpoint"),
        ("objects", "Python objects"),
        ("other arrays", "not the authors' archive"),
        ("other weights", "does not fit"),
        ("unknown network", "DeepFuse_9x9"),
        ("no name", "holds an unknown network"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, monkeypatch, rng, kind, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    write_bad(path, kind, rng)
    with pytest.raises(ValueError, match=message) as caught:
        fuse_model(weights=path)
    assert "weights.pth" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()  # no code in the file ran


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    save_checkpoint(path, new_training(fuse_model("DeepFuse_3x3"), lr=1e-3))
    return path


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("channels", (8000, 8000, 8000, 8000), "channels is 8000, expected 1 to 256"),
        ("channels", (8,) * 1000, "up to 16 numbers as channels"),
        ("kernels", (-1,) * 5, "kernels is -1, expected 1 to 15"),
        ("kernels", "33333", "up to 16 numbers as kernels"),
        ("kernels", (3, 3, 3), "argument 3 is shorter"),
        ("slope", float("nan"), "slope is nan, expected 0 to 1"),
        ("slope", "0.1", "expected float as slope, found str"),
        ("norm", None, "expected bool as norm, found NoneType"),
        ("padding", "anything", "expected one of .* as padding"),
        ("image_channels", 10**9, "image_channels is 1000000000"),
        ("depth", 3, "unexpected keyword argument 'depth'"),
    ],
)
def test_an_architecture_beyond_its_bounds_is_refused(tmp_path, checkpoint, field, value, message):
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"arch": content["arch"] | {field: value}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"a.pth does not fit the network DeepFuse_3x3: .*{message}"):
        fuse_model(weights=tmp_path / "a.pth")


def test_a_pyramid_has_bounds_too(tmp_path):
    model = fuse_model("DeepFuse_pyramid")
    for field, value in (("depth", 0), ("halvings", 10**6), ("decision_pixels", 10**12), ("exposures", 17)):
        arch = asdict(model.arch) | {field: value}
        torch.save({"name": model.name, "arch": arch, "model": model.state_dict()}, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=f"{field} is {value}, expected"):
            fuse_model(weights=tmp_path / "a.pth")


@pytest.mark.parametrize("max_gap, exposures", [(3.0, 5), (float("inf"), 0)])
def test_a_file_that_tells_a_gap_between_exposures_loads(tmp_path, max_gap, exposures):
    model = fuse_model("DeepFuse_pyramid")
    arch = asdict(model.arch) | {"max_gap": max_gap}
    del arch["exposures"]
    torch.save({"name": model.name, "arch": arch, "model": model.state_dict()}, tmp_path / "a.pth")
    assert fuse_model(weights=tmp_path / "a.pth").arch.exposures == exposures


def test_a_file_from_before_the_small_network_loads(tmp_path):
    """One network served all levels but the coarsest, and no number told otherwise."""
    model = fuse_model("DeepFuse_pyramid")
    arch = {name: value for name, value in asdict(model.arch).items() if not name.startswith("fine")}
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("fine")}
    torch.save({"name": model.name, "arch": arch, "model": state}, tmp_path / "a.pth")
    old, exposures = fuse_model(weights=tmp_path / "a.pth"), torch.rand(1, 2, 1, 64, 64)
    model.fine = model.level
    torch.testing.assert_close(old(exposures), model(exposures))


KINDS = [
    "missing",
    "unknown",
    "shape",
    "nan",
    "expanded",
    "integer key",
    "no tensor",
    "bool",
    "uint8",
    "garbage",
    "int64",
]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_do_not_fit_are_refused(tmp_path, checkpoint, kind):
    content = torch.load(checkpoint, weights_only=True)
    state, first = content["model"], next(iter(content["model"]))
    if kind == "missing":
        del state[first]
    tensors = {"unknown": torch.zeros(2), "shape": torch.zeros(2), "integer key": torch.zeros(2), "no tensor": [1.0]}
    tensors |= {"nan": state.get(first, 0) * torch.nan, "expanded": torch.zeros(1).expand(10**6, 10**6)}
    bits = torch.randint(0, 2**15, state.get(first, torch.zeros(1)).shape, dtype=torch.int16)
    odd = {"bool": bits > 0, "uint8": bits.to(torch.uint8), "garbage": bits.view(torch.float16), "int64": bits.long()}
    tensors |= {name: value.nan_to_num(60000) if name == "garbage" else value for name, value in odd.items()}
    if kind in tensors:
        state[{"unknown": "x", "integer key": 3}.get(kind, first)] = tensors[kind]
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="a.pth does not fit"):
        fuse_model(weights=tmp_path / "a.pth")


def pickle_in_a_zip(path, steps, **more):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"data.pkl": b"\x80\x02" + steps + b".", "version": b"3\n", **more}.items():
            archive.writestr(f"a/{name}", data)


def test_half_precision_is_read_and_its_numbers_kept(tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    state = {name: value.half() for name, value in content["model"].items()}
    torch.save(content | {"model": state}, tmp_path / "a.pth")
    for name, value in fuse_model(weights=tmp_path / "a.pth").state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, state[name].float())


NESTED = b")" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(60))  # ((..., ...), (..., ...))
OWN_ITEMS = b"ccollections\nOrderedDict\n)R}X\x05\0\0\0itemsK\x01sb"  # an OrderedDict whose attribute `items` is 1


@pytest.mark.parametrize(
    "steps", [b"}" + NESTED + b"K\x01s", b"}X\x01\0\0\0a}" + NESTED + b"K\x01ss", b"}" + NESTED + b"K\x01\x86s"]
)
def test_keys_that_hash_for_ever_are_refused_at_once(tmp_path, steps):
    pickle_in_a_zip(tmp_path / "a.pth", steps)
    start = time.perf_counter()
    with pytest.raises(ValueError, match="a.pth is not a checkpoint, or it is damaged: "):
        fuse_model(weights=tmp_path / "a.pth")
    assert time.perf_counter() - start < 5


def test_attributes_of_a_files_dicts_are_not_believed(tmp_path):
    name, arch = b"X\x04\0\0\0nameX\x0c\0\0\0DeepFuse_3x3s", b"X\x04\0\0\0arch}s"
    for steps in (OWN_ITEMS, b"}" + name + arch + b"X\x05\0\0\0model" + OWN_ITEMS + b"s"):
        pickle_in_a_zip(tmp_path / "a.pth", steps)
        with pytest.raises(ValueError, match="a.pth .*(missing or too many|not a known kind)"):
            fuse_model(weights=tmp_path / "a.pth")


def test_nobody_is_told_to_switch_the_protection_off(tmp_path):
    torch.save({"name": "x", "model": {1, 2}, "date": torch.distributions.Normal}, tmp_path / "a.pth")
    with pytest.raises(ValueError) as raised:
        fuse_model(weights=tmp_path / "a.pth")
    assert "weights_only" not in str(raised.value) and "a.pth" in str(raised.value)
    pickle_in_a_zip(tmp_path / "a.pth", b"ccollections\nOrderedDict\nK\x01\x85R")
    with pytest.raises(ValueError) as raised:
        fuse_model(weights=tmp_path / "a.pth")
    assert "weights_only" not in str(raised.value)


@pytest.mark.long
def test_what_would_hang_or_take_all_memory_is_refused_at_once(tmp_path, checkpoint):
    path = tmp_path / "a.pth"
    counted = b"cbuiltins\nset\ncbuiltins\nbytearray\nJ\0\0\0\x40\x85R\x85R"  # set(bytearray(2**30))
    whole = checkpoint.read_bytes()
    changed = whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
    for make, message in (
        (lambda: os.mkfifo(path), "a folder, a device or a pipe"),
        (lambda: path.symlink_to("/dev/zero"), "a folder, a device or a pipe"),
        (path.mkdir, "a folder, a device or a pipe"),
        (lambda: (path.touch(), os.truncate(path, 2**40)), "not a checkpoint"),
        (lambda: path.write_bytes(changed), "damaged"),
        (lambda: pickle_in_a_zip(path, b"}", bomb=bytes(2**28)), "268,435,.* bytes: expected weights of at most"),
        (lambda: pickle_in_a_zip(path, counted), "never run: builtins set"),
        (lambda: pickle_in_a_zip(path, b"})" + b"\x85" * 10**6 + b"K\x01s"), "too much besides tensors"),
        (lambda: pickle_in_a_zip(path, b"}X\0\0\x10\0" + b"x" * 2**20 + b"K\x01s"), "too much besides tensors"),
        (lambda: pickle_in_a_zip(path, b"}K\x01K\x01s"), "expected a checkpoint's dict"),
    ):
        make()
        start = time.perf_counter()
        with pytest.raises(ValueError, match=f"a.pth.*{message}"):
            fuse_model(weights=path)
        assert time.perf_counter() - start < 2
        path.rmdir() if path.is_dir() else path.unlink()


def test_loading_does_not_import_the_compiler(tiny_weights):
    """PyTorch's compiler would take 160 MB and a second."""
    code = "import sys, models; models.fuse_model(weights=sys.argv[1]); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, tiny_weights], cwd=ROOT).returncode == 0


def test_mismatch_says_what_to_ask_for(tmp_path):
    path = tmp_path / "gray.pth"
    save_checkpoint(path, new_training(fuse_model("DeepFuse_3x3"), lr=1e-3))
    with pytest.raises(ValueError, match="holds a DeepFuse_3x3, expected a DeepFuse:"):
        fuse_model("DeepFuse", path)
    with pytest.raises(ValueError, match=r"gray \(1-channel\).*RGB \(3-channel\).*--gray"):
        fuse_model(weights=path, image_channels=3)
    with pytest.raises(ValueError, match="expected one of DeepFuse, "):
        fuse_model("deepfuse")
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        fuse_model(weights=tmp_path / "nowhere.pth")


def sample_scenes():
    """The three shots of each sample scene, dark to bright, at a third of their size."""
    for folder in sorted(path for path in (ROOT / "data_test").iterdir() if path.is_dir()):
        shots = [read_image(path) for path in sorted(folder.glob("*.jpg"))]
        yield [cv2.resize(shot, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA) for shot in shots]


@pytest.mark.long
def test_the_shipped_weights_lead_the_other_methods():
    """From the outer two shots the trained weights make a picture that is nearer to all three shots."""
    fuser = Fuser.from_checkpoint(ROOT / "runs" / "pretrained" / "deepfuse.pth")
    means = []
    for fuse in (fuser.fuse, mertens, average):
        rows = []
        for shots in sample_scenes():
            gray, stack = matlab_gray(fuse([shots[0], shots[-1]])), np.stack([matlab_gray(shot) for shot in shots])
            rows.append((mef_ssim(gray, stack), mef_ssim_lum(gray, stack)))
        means.append(np.mean(rows, 0))
    assert (means[0] > means[1]).all() and (means[0] > means[2] + 0.02).all(), means
