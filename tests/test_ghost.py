"""utils/stack/ghost.py and --deghost: moving things go, still things stay; each step against a loop over pixels."""

from collections import deque
from pathlib import Path

import cv2
import numpy as np
import pytest

from configs import get_infer_args
from utils.fusing import fusion
from utils.fusing.fusion import fuse_scenes
from utils.pictures.image import list_images, read_image, write_image
from utils.pictures.scenes import Scene
from utils.stack import ghost
from utils.stack.ghost import remove_ghosts

DATA = Path(__file__).parents[1] / "data_test"
PATCH = slice(60, 100), slice(90, 130)  # where something stands in the over-exposed shot only


def scene(name="city"):
    return [read_image(path)[:, 300:700] for path in list_images(DATA / name)]  # dark, middle, bright


def freed(images, reference=None):
    """Returns the exposures without ghosts."""
    return remove_ghosts(images, reference)[0]


def moving_scene(name="courtyard"):
    """A scene, and the same scene with a thing that only the over-exposed shot shows."""
    still = scene(name)
    moved = [image.copy() for image in still]
    moved[2][PATCH] = cv2.GaussianBlur(still[2][200:240, 10:50], (0, 0), 2) // 2
    return still, moved


def distance(one, other):
    return np.abs(one.astype(float) - other)


def small_pair(rng, height=24, width=31):
    """A smooth picture and the same brighter, each (h, w, 3) uint8, with a dark thing and a speck in the second."""
    source = cv2.resize(rng.integers(20, 180, (5, 6, 3)).astype(np.uint8), (width, height))
    shot = np.minimum(source * 1.6 + rng.normal(0, 2, source.shape), 255).astype(np.uint8)
    shot[6:12, 8:15] = 10
    shot[20, 25] = 0
    return source, shot


def test_something_that_moves_goes_and_the_rest_stays():
    still, moved = moving_scene()
    cleaned = freed(moved, reference=1)
    assert cleaned[1] is moved[1]
    assert distance(cleaned[2], still[2])[PATCH].mean() < 0.15 * distance(moved[2], still[2])[PATCH].mean()
    outside = np.ones(still[0].shape[:2], bool)
    outside[50:110, 80:140] = False
    np.testing.assert_array_equal(cleaned[2][outside], still[2][outside])
    np.testing.assert_array_equal(cleaned[0], still[0])


def test_what_the_reference_shows_appears_in_all():
    still, moved = moving_scene()
    cleaned = freed(moved, reference=2)
    for k in (0, 1):
        dark = distance(cleaned[k], still[k])[PATCH].mean()
        assert dark > 0.2 * still[k][PATCH].mean()  # the thing is darker than the ground, in these shots too
        assert (cleaned[k][:40] == still[k][:40]).all()


def noisy(image, rng):
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def shifted(image, rng):
    matrix = np.float32([[1, 0, rng.uniform(-0.7, 0.7)], [0, 1, rng.uniform(-0.7, 0.7)]])
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def vignetted(image, rng):
    y, x = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
    return np.rint(image * (1 - rng.uniform(0, 0.04) * (x**2 + y**2))[..., None]).astype(np.uint8)


def developed(image, rng):
    """The shot with a curve and a white balance of its own."""
    power, gain = rng.uniform(0.8, 1.25), rng.uniform(0.93, 1.07, 3)
    return np.rint(255 * np.clip((image / 255) ** power * gain, 0, 1)).astype(np.uint8)


def compressed(image, rng):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize("harm", [None, noisy, shifted, vignetted, developed, compressed])
@pytest.mark.parametrize("name", ["city", "sunset"])
def test_where_nothing_moves_no_bit_changes(name, harm):
    rng = np.random.default_rng(0)
    images = scene(name)
    if harm:
        images = [harm(image, rng) for image in images]
    for cleaned, image in zip(freed(images), images, strict=True):
        np.testing.assert_array_equal(cleaned, image)


def test_order_does_not_matter_and_inputs_stay():
    _, moved = moving_scene()
    copies = [image.copy() for image in moved]
    forward, backward = freed(moved), freed(moved[::-1])[::-1]
    for one, other, image, copy in zip(forward, backward, moved, copies, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(image, copy)


def test_gray_alpha_and_16_bits_agree_with_colour():
    _, moved = moving_scene()
    grays = [image[..., 1] for image in moved]
    cleaned = freed(grays, 1)
    tripled = freed([cv2.merge([gray] * 3) for gray in grays], 1)
    assert cleaned[2].shape == grays[2].shape and (cleaned[2] != grays[2]).any()
    assert distance(cleaned[2], tripled[2][..., 0])[PATCH].mean() < 2  # colour has one more tolerance

    colour = freed(moved, 1)
    alpha = np.random.default_rng(0).integers(0, 256, moved[0].shape[:2]).astype(np.uint8)
    with_alpha = freed([np.dstack([image, alpha]) for image in moved], 1)
    np.testing.assert_array_equal(with_alpha[2], np.dstack([colour[2], alpha]))

    deep = freed([image.astype(np.uint16) * 257 for image in moved], 1)
    assert deep[2].dtype == np.uint16
    assert distance(deep[2] / 257, colour[2]).max() < 0.51  # the rounding of 8 bits


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiles_change_no_bit(dtype, monkeypatch):
    images = [image.astype(dtype) * (257 if dtype == np.uint16 else 1) for image in moving_scene()[1]]
    monkeypatch.setattr(ghost, "WORKING_PIXELS", 20_000)  # so that the decision is enlarged
    whole = freed(images, 1)
    monkeypatch.setattr(ghost, "TILE", 37)
    assert (whole[2] != images[2]).any()
    for one, other in zip(whole, freed(images, 1), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_replacing_equals_a_loop_over_pixels(dtype):
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    shot, source = rng.integers(0, top + 1, (2, 14, 19, 3)).astype(dtype)
    curves = np.sort(rng.uniform(0, 255, (3, 256)), 1)
    lost = np.linspace(0, 1, 256) ** 2
    field = rng.uniform(0, 1, (5, 7, 4)).astype(np.float32) * [1, 9, 9, 9]
    result = ghost._replace(shot, source, curves, field, lost)

    for y in range(14):
        for x in range(19):
            v = min(max((y + 0.5) * 5 / 14 - 0.5, 0), 4)
            u = min(max((x + 0.5) * 7 / 19 - 0.5, 0), 6)
            own = 0
            for j in range(5):
                for i in range(7):
                    own = own + max(1 - abs(v - j), 0) * max(1 - abs(u - i), 0) * field[j, i]
            levels = source[y, x].astype(float) * 255 / top
            gate = max(np.interp(level, range(256), lost) for level in levels)
            for c in range(3):
                there = (np.interp(levels[c], range(256), curves[c]) + gate * own[1 + c]) * top / 255
                expected = shot[y, x, c] + own[0] * (there - shot[y, x, c])
                assert abs(result[y, x, c] - min(max(expected, 0), top)) < 0.51 + top * 1e-6


def test_moving_equals_a_loop_over_pixels():
    source, shot = small_pair(np.random.default_rng(0))
    curves, spreads = ghost._curves(source, shot, np.ones(source.shape[:2], bool))
    found = ghost._moving(source, shot, curves, spreads)
    height, width, _ = source.shape
    inside = [(y, x) for y in range(height) for x in range(width)]

    def around(y, x):
        return [(j, i) for j in (y - 1, y, y + 1) for i in (x - 1, x, x + 1) if 0 <= j < height and 0 <= i < width]

    excess = {}
    for y, x in inside:
        excess[y, x] = -np.inf
        for c in range(3):
            near = [int(source[at][c]) for at in around(y, x)]
            low, high = max(min(near) - 5, 0), min(max(near) + 5, 255)
            dark = max(ghost.DARK, source[..., c].min() + 5)
            white = min(ghost.WHITE, source[..., c].max() - 5)
            own = int(shot[y, x, c])
            if min(near) >= dark:
                below = curves[c][low] - 10 - 2 * spreads[c][min(near)]
                excess[y, x] = max(excess[y, x], below - own)
            if max(near) < white:
                above = curves[c][high] + 10 + 2 * spreads[c][max(near)]
                excess[y, x] = max(excess[y, x], own - above)
        if max(shot[y, x].max(), *(source[at].max() for at in around(y, x))) >= ghost.WHITE:
            excess[y, x] -= ghost.CLIPPED_TOLERANCE
    limit = {at: ghost.CLEAR + max(spreads[c][source[at][c]] for c in range(3)) for at in inside}
    clear = {at for at in inside if all(excess[near] > limit[near] for near in around(*at))}
    queue = deque(near for at in clear for near in around(*at))  # opened: eroded, then dilated
    moving = set(queue)
    while queue:
        for near in around(*queue.popleft()):
            if excess[near] > 0 and near not in moving:
                moving.add(near)
                queue.append(near)
    expected = np.zeros((height, width), np.uint8)
    expected[tuple(zip(*moving, strict=True))] = 1
    assert expected[8:11, 10:13].all() and not expected[20, 25]
    np.testing.assert_array_equal(found, cv2.morphologyEx(expected, cv2.MORPH_CLOSE, ghost.GAP))


def test_monotone_is_the_best_by_the_min_max_formula():
    rng = np.random.default_rng(0)
    values, weights = np.arange(12) / 4 + rng.normal(0, 1, 12), rng.uniform(0.1, 2, 12)

    def mean(i, j):
        return np.average(values[i : j + 1], weights=weights[i : j + 1])

    expected = [max(min(mean(i, j) for j in range(k, 12)) for i in range(k + 1)) for k in range(12)]
    np.testing.assert_allclose(ghost._monotone(values, weights), expected)


def test_curves_are_found_through_noise_and_motion():
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (300, 300, 1)).astype(np.uint8)
    true = 255 * np.clip((np.arange(256) / 255) ** 2.2 * 3, 0, 1) ** (1 / 2.2)
    shot = np.clip(true[source] + rng.normal(0, 2, source.shape), 0, 255).astype(np.uint8)
    shot[:90] = rng.integers(0, 256, (90, 300, 1))  # three tenths know nothing of the source
    curves, spreads = ghost._curves(source, shot, np.ones((300, 300), bool))
    assert np.abs(curves[0] - true)[5:].max() < 4 and np.abs(curves[0] - true).mean() < 1.5
    assert (np.diff(curves[0]) >= 0).all() and spreads.max() <= 12


def test_the_reference_is_well_exposed_where_something_moves():
    shots = [np.full((120, 160), level, np.uint8) for level in (60, 120, 200)]
    for shot, level in zip(shots, (10, 20, 45), strict=True):  # little light on the right
        shot[:, 100:] = level
    for number, shot in enumerate(shots):
        shot[20:80, 105 + 15 * number : 120 + 15 * number] = (1, 4, 90)[number]
    assert remove_ghosts(shots)[1] == 2


def test_where_the_source_is_clipped_the_rim_fills():
    bright = np.full((100, 120, 3), 255, np.uint8)
    bright[:, :30] = np.linspace(20, 220, 30)[:, None]
    dark = np.full((100, 120, 3), (140, 100, 60), np.uint8)
    dark[:, :30] = bright[:, :30] // 4
    still = dark.copy()
    dark[40:60, 70:90] = 5  # behind it the bright shot is white
    cleaned = freed([dark, bright], reference=1)[0]
    assert distance(cleaned, still)[40:60, 70:90].max() <= 6


def test_a_reference_that_is_none_of_them_is_refused():
    with pytest.raises(ValueError, match="reference is 3: expected 0 to 2"):
        freed(scene(), 3)


class Recorder:
    """A stand-in for a Fuser that keeps the shots it was given."""

    def fuse(self, images, stops=None):
        self.images, self.stops = images, stops
        return images[0]


def fused_by(paths, out, **options):
    recorder = Recorder()
    reference = options.pop("reference", None)
    scene = Scene("scene", paths, out=out, reference=reference)
    [(_, error, recorder.reference)] = fuse_scenes([scene], lambda: recorder, **options)
    if error:
        raise error
    return recorder


def written(folder, images):
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        write_image(path, image)
    return paths


def test_files_are_aligned_then_freed_of_ghosts_then_fused(tmp_path, monkeypatch):
    _, moved = moving_scene()
    paths = written(tmp_path, moved)
    np.testing.assert_array_equal(fused_by(paths, tmp_path / "out.png").images[2], moved[2])
    for reference in (None, tmp_path / "." / "2.png", "2.png"):
        given = fused_by(paths, tmp_path / "out.png", deghost=True, reference=reference)
        number = 2 if reference else remove_ghosts(moved)[1]
        assert given.reference == paths[number]
        for one, other in zip(given.images, freed(moved, number), strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="out.png is none of the exposures .* such as .*0.png"):
        fused_by(paths, tmp_path / "out.png", deghost=True, reference=tmp_path / "out.png")

    steps = []
    monkeypatch.setattr(fusion, "align_exposures", lambda x, *_, **__: steps.append("align") or x)
    monkeypatch.setattr(fusion, "remove_ghosts", lambda x, _: (steps.append("deghost") or x, 0))
    fused_by(paths, tmp_path / "out.png", align="mtb", deghost=True)
    assert steps == ["align", "deghost"]


def test_a_shot_that_cannot_be_aligned_is_left_out_where_ghosts_are_unwanted(tmp_path, monkeypatch):
    still = scene()
    strange = np.full_like(still[1], 140)
    paths = written(tmp_path, [still[1], strange, still[2]])
    with pytest.raises(ValueError, match="cannot be aligned"):
        fused_by(paths, tmp_path / "out.png", align="homography")
    monkeypatch.setattr(ghost, "_best_exposed", lambda smalls: 1)  # the second of the two that are left
    with pytest.warns(UserWarning, match="1.png: left out of scene"):
        given = fused_by(paths, tmp_path / "out.png", align="homography", deghost=True)
    assert len(given.images) == 2 and given.images[0].mean() < given.images[1].mean()
    assert given.reference == paths[2]
    with pytest.raises(ValueError, match="reference .*1.png cannot be aligned"), pytest.warns(UserWarning):
        fused_by(paths, tmp_path / "out.png", align="homography", deghost=True, reference=paths[1])
    flat = written(tmp_path, [strange, strange // 2])
    with pytest.raises(ValueError, match="cannot be aligned"):
        fused_by(flat, tmp_path / "out.png", align="homography", deghost=True)


def test_the_command_line():
    args = get_infer_args(["a", "b", "--deghost", "--reference", "b"])
    assert args.deghost and args.reference == "b" and not get_infer_args([]).deghost
    for bad in (["--reference", "b"], ["--input_dir", "x", "--output_dir", "y", "--deghost", "--reference", "b"]):
        with pytest.raises(SystemExit):
            get_infer_args(bad)
