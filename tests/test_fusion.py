"""utils/fusing/fusion.py: from files to the fused picture, for one scene and for folders of scenes."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from models import NETWORKS
from utils.errors import Defect, UserError, told
from utils.fusing import fusion
from utils.fusing.fusion import Fuser, check_exposures, fuse_scenes, read_exposures
from utils.fusing.network import DecidingNetwork
from utils.fusing.tiles import on_device
from utils.pictures.image import read_photo, write_image
from utils.pictures.pixels import luma, shrink, to_float
from utils.pictures.scenes import Scene
from utils.stack.align import align_exposures
from utils.stack.response import fit_response

ROOT = Path(__file__).parents[1]
SHAPES = [(1, 1), (7, 300), (65, 64), (80, 90, 3), (80, 90, 4), (1, 1, 3), (4, 1, 3)]


class Mean:
    """A stand-in for a Fuser that returns the mean of the shots and calls `called` each time."""

    def __init__(self, called=lambda: None):
        self.called = called

    def fuse(self, images, stops=None):
        self.called()
        return np.mean(images, 0).round().astype(images[0].dtype)


# Fuser


def test_overlapping_scenes_with_one_look_agree_better_than_alone():
    """Every network sees them as one picture: its mean, its darkest and its brightest part are then those of both."""
    network = Fuser.from_checkpoint(ROOT / "runs" / "pretrained" / "deepfuse.pth").network
    shots = [read_photo(path)[0] for path in sorted((ROOT / "data_test" / "courtyard").glob("*.jpg"))[::2]]
    views = [[shot[:, part] for shot in shots] for part in (slice(0, 700), slice(300, 1000))]
    decisions = network.decide_together([network.small_copy(view) for view in views])
    together = [decision.develop(view).astype(int) for decision, view in zip(decisions, views, strict=True)]
    alone = [network.fuse(view).astype(int) for view in views]
    apart, nearer = (np.abs(left[:, 300:] - right[:, :400]).mean() for left, right in (alone, together))
    assert nearer < 0.7 * apart


def test_one_look_of_one_scene_is_its_own_and_sizes_and_numbers_of_shots_may_differ(pyramid, stack):
    network = on_device(pyramid)
    scenes = [stack(2, (40, 50, 3)), stack(4, (70, 30)), stack(3, (64, 64, 3), darkest=0.01)]
    decisions = network.decide_together([network.small_copy(scene) for scene in scenes])
    for decision, scene in zip(decisions, scenes, strict=True):
        assert decision.stops.shape == decision.scene.radiance.shape[:2]
        assert decision.develop(scene).shape == scene[0].shape
    many = network.small_copy(scenes[2], scenes=160)
    assert many.radiance.shape[:2] == many.shots[0].shape == (17, 17)  # 3000 pixels, of which it gets a tenth
    [alone] = network.decide_together([network.small_copy(scenes[0])])
    np.testing.assert_array_equal(alone.develop(scenes[0]), network.fuse(scenes[0]))
    mirrored = network.decide_together(
        [network.small_copy(scenes[0]), network.small_copy([x[:, ::-1] for x in scenes[0]])]
    )
    assert np.abs(mirrored[0].stops - mirrored[1].stops[:, ::-1]).mean() < 0.5  # each beside its own mirror picture


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_shape_and_type_stays_and_the_order_does_not_matter(pyramid, stack, device, shape, dtype):
    fuser = Fuser(on_device(pyramid, device))
    for count, darkest in ((2, 0.1), (3, 0.3)):
        images = stack(count, shape, dtype, darkest)
        fused = fuser.fuse(images)
        assert fused.shape == shape and fused.dtype == dtype
        difference = fuser.fuse(images[::-1]) - fused.astype(int)
        assert np.abs(difference).max() <= np.iinfo(dtype).max // 255  # sums of floats in another order


def test_the_network_sees_the_scene_from_the_darkest_to_the_brightest_shot(pyramid, stack, device):
    """Evenly spread exposures, always the same number, of which the first and the last are those of the shots."""
    seen, decide = [], pyramid.forward
    pyramid.forward = lambda exposures: seen.append(exposures[0, :, 0]) or decide(exposures)
    fuser = Fuser(on_device(pyramid, device))
    for count, darkest in ((2, 0.8), (2, 0.2), (4, 0.2)):
        images = stack(count, darkest=darkest)
        fuser.fuse(images[::-1])
        shown = seen[-1].numpy(force=True)
        assert len(shown) == 5 and (np.diff(shown.mean((1, 2))) > 0).all()
        for picture, exposure in ((images[0], shown[0]), (images[-1], shown[-1])):
            assert np.abs(luma(shrink(picture, pixels=3000)) - exposure).mean() < 0.02


@torch.inference_mode()
def test_of_gray_at_the_size_of_the_decision_the_picture_is_the_network(pyramid, stack, device):
    shots = stack(2, (40, 50), np.uint16, darkest=0.8)
    response = fit_response(shots)
    seen = response.expose(shots, pyramid.arch.exposures)
    expected = pyramid(torch.from_numpy(seen)[None, :, None])[0][0, 0].numpy()
    fused = to_float(Fuser(on_device(pyramid, device)).fuse(shots))
    ends = (-2, max(response.stops) + 2)  # the picture shows no pixel darker or brighter than at these
    darkest, brightest = (response.render(response.merge(shots), 2.0**stops) for stops in ends)
    middle = (expected > darkest + 0.01) & (expected < np.minimum(brightest, 0.85) - 0.01)
    assert middle.mean() > 0.3
    np.testing.assert_allclose(fused[middle], expected[middle], atol=1e-3)


def test_identical_exposures_are_one_whatever_their_number(pyramid, stack, device):
    image, fuser = stack(2, (80, 90, 4))[0], Fuser(on_device(pyramid, device))
    two, five = (fuser.fuse([image] * count).astype(int) for count in (2, 5))
    assert np.abs(two - five).max() <= 1 and (two != five).mean() < 1e-3  # sums of floats are rounded
    assert (fuser.fuse([image] * 2)[..., 3] == image[..., 3]).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_damaged_weights_are_said_to_be(network, stack, device, name):
    model = network(name)
    next(model.parameters()).data.fill_(torch.nan)
    fuser = Fuser(on_device(model, device))
    fuser.network.weights = "mine.pth"
    with pytest.raises(ValueError, match="not finite.*: mine.pth is damaged"):
        fuser.fuse(stack(2, (20, 30, 3)))


def test_the_file_of_damaged_weights_is_named(tmp_path, tiny_weights, stack):
    path, content = tmp_path / "mine.pth", torch.load(tiny_weights, weights_only=True)
    content["model"] = {key: 1e3 * value / value.abs().max() for key, value in content["model"].items()}
    torch.save(content, path)  # each weight is one that a network may have
    with pytest.raises(UserError) as raised:
        Fuser.from_checkpoint(path).fuse(stack(2, (20, 30, 3)))
    assert str(raised.value).endswith(f"no luminance: {path} is damaged")


@pytest.mark.parametrize("y, weight", [(11, 0.5), (-11, 0.5), (np.nan, 0.5), (0.5, np.nan), (0.5, np.inf)])
def test_a_decision_that_is_no_luminance_is_refused(stack, y, weight):
    """As of weights whose file was changed: the picture would be black and white, without a word."""
    decision = np.full((90, 117), 0.5, np.float32)

    class Damaged(DecidingNetwork):
        decision_pixels, exposures = 10**6, 5

        def decide(self, exposures):
            return decision, np.full(exposures.shape, weight, np.float32)

    decision[5, 6] = 1.2 if np.isfinite(weight) else 0.5
    if np.isfinite(weight):
        assert Fuser(Damaged()).fuse(stack()).shape == (90, 117, 3)
    decision[5, 6] = y
    with pytest.raises(ValueError, match="no luminance: its file of weights is damaged"):
        Fuser(Damaged()).fuse(stack())


def test_bad_exposures_are_refused(stack):
    a, b = stack()
    for images, match in (
        ([a], "two or more"),
        ([a, b[:-1]], "agree"),
        ([a, b.astype(np.uint16)], "agree"),
        ([a.astype(np.float32), b], "expected"),
        ([a[..., :2], b[..., :2]], "expected"),
        ([a[:0], b[:0]], "expected"),
        ([None, None], "as arrays, got NoneType: cv2.imread"),  # what it gives for a missing file
        ([a, None], "as arrays, got NoneType"),
        ("ab", "as arrays, got str"),
    ):
        with pytest.raises(ValueError, match=match):
            check_exposures(images)


@pytest.mark.parametrize(
    "picture, said",
    [
        (Image.new("RGB", (4, 4)), r"got PIL Image: give np.asarray\(picture\), with rgb=True$"),
        (torch.zeros(3, 4, 4), r"got torch Tensor: give \(255 \* tensor\).round\(\)"),
        ([[1, 2]], "got list: cv2.imread gives None for what it cannot read$"),
    ],
)
def test_how_pictures_of_other_libraries_become_arrays_is_said(picture, said):
    with pytest.raises(UserError, match=said):
        fusion.as_array(picture)
    array = np.zeros((4, 4))
    assert fusion.as_array(array) is array


# Files


def test_sizes_are_said_with_their_layout():
    shapes = {(9, 16): "16x9 in gray", (9, 16, 3): "16x9 in colour", (9, 16, 4): "16x9 in colour with alpha"}
    assert {shape: fusion.size_in_words(np.zeros(shape)) for shape in shapes} == shapes


def test_a_reference_may_be_a_bare_name_if_one_alone_has_it(tmp_path):
    paths = [tmp_path / name for name in ("a/1.jpg", "a/2.jpg", "b/2.jpg")]
    for reference, expected in (("1.jpg", 0), (paths[2], 2), (tmp_path / "b" / ".." / "a" / "2.jpg", 1)):
        assert fusion.find_reference(paths, reference) == expected
    for reference in ("2.jpg", "3.jpg", tmp_path / "1.jpg"):
        with pytest.raises(UserError, match="is none of the exposures"):
            fusion.find_reference(paths, reference)


def test_one_scene_is_read_ahead_and_no_more(monkeypatch):
    """More would need memory: each is read when the one before it is handed out."""
    read, scenes = [], [Scene(name, [Path(f"{name}1"), Path(f"{name}2")]) for name in "abcde"]
    monkeypatch.setattr(fusion, "read_exposures", lambda paths, *_: read.append(paths[0].name) or ([], None, None))
    stacks = fusion._stacks(scenes, None, False, None, False)
    for number, (scene, stack) in enumerate(stacks):
        expected, end = [f"{name}1" for name in "abcde"[: number + 2]], time.monotonic() + 60
        while len(read) < len(expected) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.02)  # more would be read by now
        assert scene is scenes[number] and stack.images == [] and read == expected


def test_files_that_do_not_belong_together_are_refused(tmp_path, stack):
    a, b = stack()
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, image in zip(paths, (a, b), strict=True):
        write_image(path, image)
    out = tmp_path / "out.png"
    for name, image, match in (
        ("small", b[:-3], "size"),
        ("deep", b.astype(np.uint16), "type"),
        ("gray", b[..., 0], "size"),
    ):
        write_image(tmp_path / f"{name}.png", image)
        with pytest.raises(ValueError, match=match) as raised:
            read_exposures([paths[0], tmp_path / f"{name}.png"], out)
        assert f"{name}.png" in str(raised.value)
    with pytest.raises(ValueError, match="overwritten"):
        read_exposures(paths, paths[1])
    with pytest.raises(ValueError, match="two or more"):
        read_exposures(paths[:1], out)
    with pytest.raises(ValueError, match="suffix"):
        read_exposures(paths, tmp_path / "out")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(b).save(tmp_path / "profile.png", icc_profile=profile)
    with pytest.raises(ValueError, match="colour profile"):
        read_exposures([paths[0], tmp_path / "profile.png"], out)
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(b).save(tmp_path / "turned.png", exif=exif)
    with pytest.raises(ValueError, match="orientation"):
        read_exposures([paths[0], tmp_path / "turned.png"], out)


def save_shot(path, image, maker, exposure_time=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[271] = maker
    if exposure_time:
        exif.get_ifd(0x8769).update({33434: exposure_time, 33437: 8.0, 34855: 100})
    Image.fromarray(image[..., ::-1] if image.ndim == 3 else image).save(path, exif=exif)
    return path


def test_stops_are_those_of_the_files_where_all_note_them(tmp_path, stack):
    under, over = stack()
    paths = [save_shot(tmp_path / "0.png", under, "m", 0.01), save_shot(tmp_path / "1.png", over, "m", 0.08)]
    images, _, stops = read_exposures(paths, tmp_path / "out.png")
    assert stops[1] - stops[0] == pytest.approx(3) and (images[1] == over).all()
    save_shot(paths[0], under, "m")
    assert read_exposures(paths, tmp_path / "out.png")[2] is None


def test_fuse_files_takes_metadata_from_the_file_that_is_named(tmp_path, pyramid, stack):
    paths = [save_shot(tmp_path / f"{k}.jpg", image, f"maker {k}") for k, image in enumerate(stack(3))]
    for source, maker in ((None, "maker 0"), (paths[2], "maker 2")):
        Fuser(on_device(pyramid)).fuse_files(paths, tmp_path / "out.png", metadata_from=source)
        assert read_photo(tmp_path / "out.png")[1].exif[0][271] == maker


# Many scenes


def saved(tmp_path, scenes):
    """Returns the scenes (name -> pictures) as files, their shots saved with the scene's name as their maker."""
    return [
        Scene(
            name,
            [save_shot(tmp_path / name / f"{k}.png", image, f"{name} {k}") for k, image in enumerate(images)],
            out=tmp_path / f"{name}.png",
        )
        for name, images in scenes.items()
    ]


@pytest.mark.parametrize("align", [None, "mtb"])
def test_every_scene_is_aligned_and_has_its_own_metadata(tmp_path, rng, align):
    texture = cv2.resize(rng.random((40, 40, 3), np.float32), (180, 160))

    def hand_held(shift):
        corners = (0, 0.5), (shift, 0.9)
        return [(255 * gain * texture[y : y + 120, y : y + 140]).astype(np.uint8) for y, gain in corners]

    scenes = {"a": hand_held(6), "b": hand_held(11), "c": hand_held(3)}
    for scene, error, _ in fuse_scenes(saved(tmp_path, scenes), Mean, align):
        assert error is None
        images = align_exposures(scenes[scene.name], align) if align else scenes[scene.name]
        fused, metadata = read_photo(scene.out)
        np.testing.assert_array_equal(fused, Mean().fuse(images))
        assert metadata.exif[0][271] == f"{scene.name} 0"
        assert (fused.shape != scenes[scene.name][0].shape) == bool(align)  # cropped to what both show


def test_one_bad_scene_does_not_stop_the_others(tmp_path, stack, monkeypatch):
    small, scenes = stack(2, (8, 9, 3)), saved(tmp_path, {name: stack(2, (20, 30, 3)) for name in "abcdefgh"})
    scenes[0].paths[1].write_text("words")
    write_image(scenes[1].paths[0], small[0])
    scenes[2].paths[0].unlink()
    (tmp_path / "file").write_text("in the way")
    scenes[3] = Scene("d", scenes[3].paths, out=tmp_path / "file" / "d.png")  # cannot be written

    def fuse():  # "d", then those that run out of memory, each in its library's way, then "h"
        if error := next(libraries):
            raise error

    gpu = torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
    opencv = cv2.error("OpenCV(5) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes")
    libraries = iter([None, MemoryError(), gpu, opencv, None])
    results = list(fuse_scenes(scenes, lambda: Mean(fuse)))
    assert sorted(end.scene.name for end in results) == list("abcdefgh")
    errors = {end.scene.name: end.error for end in results}
    assert "1.png: damaged" in str(errors["a"]) and "size" in str(errors["b"]) and "no such file" in str(errors["c"])
    assert isinstance(errors["d"], OSError)
    said = {"e": "out of memory", "f": "CUDA out of memory. Tried to allocate", "g": str(opencv)}
    for name, line in said.items():
        assert isinstance(errors[name], ValueError) and str(errors[name]) == line
        assert errors[name].__traceback__ is errors[name].__context__ is None  # they would hold the scene's memory
    assert errors["h"] is None and (tmp_path / "h.png").is_file()


def test_a_defect_ends_only_its_scene_and_shows_its_traceback(tmp_path, stack):
    def fuse():
        if next(numbers) == 0:
            np.zeros(3) + np.zeros(4)

    numbers, scenes = iter(range(2)), saved(tmp_path, {name: stack(2, (20, 30, 3)) for name in "ab"})
    (_, error, _), (_, none, _) = fuse_scenes(scenes, lambda: Mean(fuse))
    assert none is None and (tmp_path / "b.png").is_file()
    assert isinstance(error, Defect) and error.__traceback__ is error.__context__ is None
    lines = told(error, "a").splitlines()
    assert lines[0].startswith("Traceback") and "np.zeros(3) + np.zeros(4)" in told(error)
    assert "ValueError: operands could not be broadcast" in lines[-2] and lines[-1].startswith(
        "error: a: this is a defect"
    )


def test_reading_and_writing_go_on_beside_fusing(tmp_path, stack, monkeypatch):
    """Each step waits for another that must run at the same time: one after the other, they would wait forever."""
    started = {(what, k): threading.Event() for what in ("read", "fuse") for k in range(3)}
    counts = {"read": iter(range(3)), "fuse": iter(range(3))}

    def start(what):
        k = next(counts[what])
        started[what, k].set()
        return k

    def wait(what, k):
        assert started[what, k].wait(10), f"nobody began to {what} scene {k}"

    def read(*arguments):
        k = start("read")
        if k:
            wait("fuse", k - 1)  # the scene before is not waiting for this one
        return read_exposures(*arguments)

    def load():
        wait("read", 0)
        return Mean(fuse)

    def fuse():
        wait("read", min(start("fuse") + 1, 2))

    def write(path, *arguments):
        wait("fuse", min("abc".index(Path(path).stem) + 1, 2))
        write_image(path, *arguments)

    monkeypatch.setattr(fusion, "read_exposures", read)
    monkeypatch.setattr(fusion, "write_image", write)
    results = list(fuse_scenes(saved(tmp_path, {name: stack(2, (20, 30, 3)) for name in "abc"}), load))
    assert [(end.scene.name, end.error) for end in results] == [(name, None) for name in "abc"]


def test_no_scenes_need_no_network():
    assert list(fuse_scenes([], lambda: pytest.fail("loaded"))) == []


def test_what_needs_no_network_does_not_import_pytorch():
    files = [path for wing in ("pictures", "stack", "fusing") for path in (ROOT / "utils" / wing).glob("[a-z]*.py")]
    names = ", ".join(f"utils.{path.parent.name}.{path.stem}" for path in files if path.stem != "tiles")
    code = f"import sys, configs, run_infer, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("script", ["run_infer.py", "run_train.py", "run_eval.py"])
def test_the_command_line_is_answered_without_pytorch(script):
    code = "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"  # None: importing it fails
    for option, status, said in (("--help", 0, "usage: "), ("--mistyped", 2, "error: unrecognized arguments")):
        command = [sys.executable, "-c", code, script, option]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status and said in done.stdout + done.stderr, done.stderr
