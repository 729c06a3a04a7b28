"""utils/stack/radiance.py: radiance maps, from each kind of file to exposures and to one picture."""

import math
import statistics

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from utils.fusing.fusion import read_exposures
from utils.pictures.image import list_images, read_photo, read_radiance, write_image
from utils.pictures.scenes import find_scenes, with_outputs
from utils.stack import radiance as module
from utils.stack.radiance import expose


def light(rng, shape=(40, 50, 3), stops=12):
    """A smooth radiance map whose light spans about `stops` stops."""
    return cv2.resize(2 ** rng.uniform(-stops, 0, (8, 10, *shape[2:])), shape[1::-1]).astype(np.float32)


def srgb(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("shape", [(40, 50, 3), (40, 50), (1, 1, 3)])
def test_exposures_are_the_light_scaled_clipped_and_curved(rng, shape):
    radiance = light(rng, shape)
    images, stops = expose(radiance)
    for image, stop in zip(images, stops, strict=True):
        expected = srgb(np.minimum(radiance.astype(float) * 2**stop, 1)) * 65535
        assert image.dtype == np.uint16 and np.abs(image - expected).max() < 2
    assert len(images) >= 2 and np.diff(stops).min() > 0 and np.diff(stops).max() <= 2 + 1e-6


def test_exposures_span_the_range_whatever_the_unit(rng):
    radiance = light(rng, (200, 250, 3))
    images, stops = expose(radiance)
    assert (images[0] == 65535).any(axis=2).mean() == pytest.approx(0.001, abs=1e-4)
    shown = (radiance.mean(2) * 2 ** stops[-1] >= 0.18 - 1e-6).mean()
    assert shown == pytest.approx(0.98, abs=1e-4)
    brighter, other = expose(radiance * 1024)
    np.testing.assert_allclose(np.subtract(stops, other), 10, atol=1e-4)
    assert np.abs(np.subtract(images, brighter, dtype=int)).max() <= 1
    for span, count in ((0, 2), (60, 9)):
        assert len(expose(light(rng, stops=span))[0]) == count


def test_what_is_no_light_is_black_or_filled(rng):
    radiance = light(rng)
    radiance[0, :3] = [[-1] * 3, [np.nan] * 3, [np.inf] * 3]
    images, _ = expose(radiance)
    assert (images[0][0, 2] == 65535).all()
    radiance = np.full((20, 20, 3), 1, np.float32)
    radiance[9:12, 9:12] = 30000
    whole, _ = expose(radiance)
    radiance[8, 8:13], radiance[10, 10] = -0.01, 0  # a ring's undershoot
    np.testing.assert_array_equal(expose(radiance)[0][0], whole[0])
    for black in (np.zeros((4, 4), np.float32), np.full((4, 4, 3), np.nan, np.float32)):
        with pytest.raises(ValueError, match="black all over"):
            expose(black)


def write_float(path, radiance):
    """Writes a radiance map in the format of the path's suffix."""
    if path.suffix == ".exr":
        exr = pytest.importorskip("OpenEXR")
        channels = {"RGB": radiance[..., ::-1].copy()} if radiance.ndim == 3 else {"Y": radiance}
        exr.File({"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}, channels).write(str(path))
    else:
        path.write_bytes(cv2.imencode(path.suffix, radiance)[1].tobytes())


@pytest.mark.parametrize(
    "suffix, channels, precision",
    [(".hdr", 3, 1 / 128), (".exr", 3, 0), (".exr", 1, 0), (".tif", 3, 0), (".tif", 1, 0)],
)
def test_one_radiance_map_is_read_as_exposures(tmp_path, rng, suffix, channels, precision):
    radiance = light(rng)[..., :channels].squeeze().copy()
    write_float(tmp_path / f"map{suffix}", radiance)
    again, metadata = read_radiance(tmp_path / f"map{suffix}")
    assert again.dtype == np.float32 and metadata.size == (50, 40)
    largest = np.atleast_3d(radiance).max(2, keepdims=True).reshape(radiance.shape[:2] + (1,) * (radiance.ndim - 2))
    assert (np.abs(again - radiance) <= precision * largest).all()  # RGBE has 8 bits, of the brightest channel
    images, _, stops = read_exposures([tmp_path / f"map{suffix}"], tmp_path / "out.jpg")
    np.testing.assert_array_equal(images, expose(again)[0])
    assert len(stops) == len(images)
    with pytest.raises(ValueError, match="at most 1,999: .*--max_pixels"):
        read_radiance(tmp_path / f"map{suffix}", max_pixels=1999)
    data = (tmp_path / f"map{suffix}").read_bytes()
    (tmp_path / f"copy{suffix}").write_bytes(data)
    with pytest.raises(ValueError, match="fuse it alone"):
        read_exposures([tmp_path / f"map{suffix}", tmp_path / f"copy{suffix}"], tmp_path / "out.jpg")
    (tmp_path / f"half{suffix}").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged"):
        read_radiance(tmp_path / f"half{suffix}")


def test_float_tiff_is_turned_and_its_profile_left_out(tmp_path, rng):
    radiance = light(rng)[..., 0]
    Image.fromarray(radiance).save(tmp_path / "map.tif", tiffinfo={274: 6, 271: "Acme"}, icc_profile=b"linear")
    image, metadata = read_radiance(tmp_path / "map.tif")
    np.testing.assert_array_equal(image, np.rot90(radiance, -1))
    assert metadata.icc is None and metadata.exif[0][271] == "Acme"


def test_a_hole_is_darker_than_its_surroundings_by_more_than_1024():
    radiance = np.full((9, 12), 1, np.float32)
    radiance[4, 4], radiance[4, 8] = 1 / 1024, 1 / 1024.5
    filled = module._without_holes(radiance)
    assert (filled[4, 4], filled[4, 8]) == (np.float32(1 / 1024), 1)
    radiance[3:6, 3:6] = 0  # too wide for a hole
    assert not module._without_holes(radiance)[4, 4]


def test_only_a_radiance_map_comes_alone(tmp_path, stack):
    write_image(tmp_path / "a.png", stack()[0])
    with pytest.raises(ValueError, match="two or more exposures, got 1"):
        read_exposures([tmp_path / "a.png"], tmp_path / "out.png")
    with pytest.raises(ValueError, match="no radiance map"):
        read_radiance(tmp_path / "a.png")


def test_an_exr_without_colour_is_refused(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    channels = {"Z": np.ones((4, 5), np.float32)}
    exr.File({"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}, channels).write(str(tmp_path / "z.exr"))
    with pytest.raises(ValueError, match="z.exr: expected the channels R, G, B, or Y, RY, BY, or Y, got Z"):
        read_radiance(tmp_path / "z.exr")


def test_in_a_folder_each_is_a_scene_and_beside_shots_none(tmp_path, rng):
    for name in ("b.hdr", "a.tif"):
        write_float(tmp_path / name, light(rng))
    scenes, notes, _ = find_scenes(tmp_path)
    assert [scene.name for scene in scenes] == ["a_fused", "b_fused"] and not notes
    assert [scene.out.name for scene in with_outputs(scenes, tmp_path / "out")] == ["a_fused.tif", "b_fused.tif"]
    assert [path.name for path in list_images(tmp_path)] == ["a.tif"]  # photographs, by their suffix
    with pytest.raises(ValueError, match="fuse it alone"):
        read_photo(tmp_path / "b.hdr")


def test_infinity_is_the_largest_value_also_of_dim_maps(rng):
    bounded = 0.3 * rng.random((20, 30, 3), np.float32)
    bounded[3, 4] = bounded[9, 9] = 0.4
    endless = bounded.copy()
    endless[3, 4] = np.inf
    assert all(map(np.array_equal, expose(endless)[0], expose(bounded)[0]))


@pytest.mark.parametrize("channels, noise", [(3, 0.3), (3, 1.0), (1, 1.0), (3, 0.0)])
def test_the_shadow_is_that_of_sorted_stops(rng, channels, noise):
    """The darkest stop of light whose grain is little enough, by SciPy's means of 3x3 pixels and Python's medians."""
    pixels = 2 ** cv2.resize(rng.uniform(-12, 0, (6, 8)), (96, 80))[..., None] * np.ones(channels)
    pixels = np.maximum(pixels * (1 + rng.normal(0, noise, pixels.shape) * (pixels < 2**-6)), 1e-6).astype(np.float32)
    lit = rng.random((80, 96)) < 0.9

    def around(plane):
        return ndimage.uniform_filter(plane.astype(float), 3, mode="mirror")

    mean = pixels.mean(2)
    offsets = [pixels[..., c] - mean if channels > 1 else mean for c in range(channels)]
    rough = np.max([np.abs(offset - around(offset)) for offset in offsets], 0)
    darkest, stops = np.percentile(mean[lit], 2), {}
    for light, its in zip(around(mean)[lit], rough[lit], strict=True):
        known, grains = stops.setdefault(math.floor(math.log2(light)), ([], []))
        known.append(light >= darkest)
        grains.append(its / light)
    expected = darkest
    for stop in sorted(stops):
        if any(stops[stop][0]):
            grain = statistics.median(stops[stop][1])
            if grain < 0.25:
                break
            expected = max(expected, 2.0**stop * (grain / 0.25) ** 4)
    assert module._shadow(pixels, lit) == pytest.approx(expected, rel=1e-3)
    assert (expected > darkest) == (noise > 0.5)


def test_of_large_maps_every_nth_pixel_is_looked_at(rng, monkeypatch):
    radiance = light(rng, (200, 250, 3))
    _, stops = expose(radiance)
    for samples in (5_000, 20_000):
        monkeypatch.setattr(module, "SAMPLES", samples)
        few = expose(radiance)[1]
        assert few != stops and np.abs(np.subtract([few[0], few[-1]], [stops[0], stops[-1]])).max() < 0.3


def test_noise_in_the_dark_is_not_lifted_to_grey(rng):
    """Half of the picture is as good as black: what a sensor measures there is its own noise."""
    clean = cv2.resize(rng.uniform(0.3, 1, (6, 8, 3)), (160, 120)).astype(np.float32)
    clean[:, :80] *= 1e-5
    noisy = clean + rng.normal(0, 1e-4, clean.shape).astype(np.float32)
    images, stops = expose(noisy)
    assert np.median(images[-1][:, :75]) < 0.15 * 65535 and np.median(images[-1][:, 85:]) > 0.4 * 65535
    shadows = clean.copy()
    shadows[:, :80] *= 100  # the same without noise, dark but clean: it is lifted
    assert np.median(expose(shadows)[0][-1][:, :75]) > 0.4 * 65535
