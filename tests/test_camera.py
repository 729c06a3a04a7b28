"""What cameras write: raw, HEIC and AVIF, by utils/pictures/image.py and utils/pictures/metadata.py."""

import struct
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.test_image import SRGB, camera_exif
from utils.fusing.fusion import read_exposures
from utils.pictures.image import list_images, read_photo, write_image
from utils.pictures.metadata import read_metadata
from utils.pictures.pixels import upright
from utils.pictures.scenes import find_scenes, with_outputs

WHITE = 16383  # of 14 bits
GAINS = (2.0, 1.0, 1.5)  # of the camera's red, green and blue, to make white
TO_CAMERA = np.linalg.inv([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # as sRGB's


def ifd(entries, start):
    """The bytes of a TIFF directory of {tag: (type, values)}, followed by the values that do not fit into it."""
    forms = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 7: "B", 10: "ii"}
    head, tail, after = struct.pack("<H", len(entries)), b"", start + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        if kind == 2:
            packed, count = values + b"\0", len(values) + 1
        else:
            packed, count = struct.pack(f"<{len(values)}{forms[kind][0]}", *values), len(values) // len(forms[kind])
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", after + len(tail))
        tail += (packed + bytes(len(packed) % 2)) if len(packed) > 4 else b""
        head += struct.pack("<HHI", tag, kind, count) + place
    return head + bytes(4) + tail


def dng(light, seconds=1 / 125, gains=GAINS, orientation=1):
    """The bytes of a DNG of linear sRGB light (H, W, 3), 1 is white, seen through a Bayer filter; H and W are even."""
    height, width = light.shape[:2]
    sensor = np.clip(light / np.array(gains), 0, 1)
    mosaic = sensor[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = sensor[::2, ::2, 0], sensor[1::2, 1::2, 2]
    data = np.rint(mosaic * WHITE).astype("<u2").tobytes()
    rationals = [part for value in TO_CAMERA.ravel() for part in (round(value * 10000), 10000)]
    neutral = [part for gain in gains for part in (round(10000 / gain), 10000)]
    shot = {33434: (5, (round(seconds * 1e6), 10**6)), 33437: (5, (8, 1)), 34855: (3, (100,))}
    shot |= {36867: (2, b"2024:05:06 07:08:09"), 37500: (7, (1,) * 70000)}
    main = {
        254: (4, (0,)),
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (16,)),
        259: (3, (1,)),
        262: (3, (32803,)),
    }
    main |= {271: (2, b"Acme"), 272: (2, b"One"), 273: (4, (0,)), 274: (3, (orientation,)), 277: (3, (1,))}
    main |= {278: (4, (height,)), 279: (4, (len(data),)), 33421: (3, (2, 2)), 33422: (1, (0, 1, 1, 2))}
    main |= {50706: (1, (1, 4, 0, 0)), 50717: (4, (WHITE,)), 50721: (10, rationals), 50728: (5, neutral)}
    main |= {50778: (3, (21,)), 34665: (4, (0,))}
    size = len(ifd(main, 8))
    main[34665] = 4, (8 + size,)
    details = ifd(shot, 8 + size)
    main[273] = 4, (8 + size + len(details),)
    return b"II*\0\x08\0\0\0" + ifd(main, 8) + details + data


def scene(rng, shape=(64, 96)):
    """Smooth linear light (H, W, 3) RGB."""
    return cv2.resize(rng.uniform(0.02, 0.9, (4, 6, 3)), shape[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)


def srgb(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_camera_raw_is_developed_to_srgb(tmp_path, rng):
    pytest.importorskip("rawpy")
    light = scene(rng) * 0.85  # no pixel is white, so an automatic brightness or white level would show
    (tmp_path / "a.dng").write_bytes(dng(light))
    image, metadata = read_photo(tmp_path / "a.dng")
    assert image.dtype == np.uint16 and image.shape == (64, 96, 3) and metadata.size == (96, 64)
    error = image[4:-4, 4:-4, ::-1] / 65535 - srgb(light)[4:-4, 4:-4]  # LibRaw interpolates the border in another way
    assert np.abs(error).mean() < 0.005 and np.percentile(np.abs(error), 99) < 0.03
    assert metadata.exposure_time == pytest.approx(1 / 125) and metadata.captured == "2024:05:06 07:08:09.0"
    write_image(tmp_path / "a.jpg", image, metadata)  # the maker notes would not fit
    assert read_metadata(tmp_path / "a.jpg").exif[0][271] == "Acme"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])  # those that cameras write
def test_camera_raw_is_turned(tmp_path, rng, orientation):
    pytest.importorskip("rawpy")
    for name, way in (("a", 1), ("b", orientation)):
        (tmp_path / f"{name}.dng").write_bytes(dng(scene(np.random.default_rng(1)), orientation=way))
    (plain, _), (turned, metadata) = (read_photo(tmp_path / f"{name}.dng") for name in "ab")
    np.testing.assert_array_equal(turned, upright(plain, orientation))
    assert metadata.orientation == orientation


def test_a_bracket_of_camera_raw_is_developed_alike(tmp_path, rng):
    """The second shot, two stops more, is the first one's light times four, though its camera chose another white."""
    pytest.importorskip("rawpy")
    light = scene(rng) / 4
    (tmp_path / "a.dng").write_bytes(dng(light, 1 / 100))
    # The white balance is only a note in the file: the sensor's values do not depend on it.
    (tmp_path / "b.dng").write_bytes(dng(light * 4 / np.array(GAINS) * (1.2, 1, 2.5), 1 / 25, (1.2, 1.0, 2.5)))
    (tmp_path / "c.dng").write_bytes(dng(light * 4, 1 / 25))
    (under, over), metadata, stops = read_exposures([tmp_path / "a.dng", tmp_path / "b.dng"], tmp_path / "out.tif")
    expected = read_photo(tmp_path / "c.dng")[0]
    assert np.abs(over.astype(int) - expected)[4:-4, 4:-4].mean() < 100  # of 65535: rounding
    assert np.abs(read_photo(tmp_path / "b.dng")[0].astype(int) - expected).mean() > 2000
    assert np.abs(srgb(light)[4:-4, 4:-4] - under[4:-4, 4:-4, ::-1] / 65535).mean() < 0.005
    assert stops[1] - stops[0] == pytest.approx(2) and metadata.exif[0][271] == "Acme"
    assert [scene.out.suffix for scene in with_outputs(find_scenes(tmp_path)[0], tmp_path)] == [".tif"]


def test_damaged_raw_is_refused(tmp_path, rng):
    pytest.importorskip("rawpy")
    data = dng(scene(rng))
    for name, content in (("half", data[: len(data) // 2]), ("text", b"no picture"), ("cut", data[:-3000])):
        (tmp_path / f"{name}.dng").write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}.dng: damaged, or not a picture \(Input/output error\)"):
            read_photo(tmp_path / f"{name}.dng")


@pytest.mark.parametrize(
    "name, head, module, package",
    [
        ("a.nef", b"II*\0", "rawpy", "rawpy"),
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow_heif", "pillow-heif"),
        ("a.exr", b"v/1\x01", "OpenEXR", "OpenEXR"),
    ],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, name, head, module, package):
    monkeypatch.setitem(sys.modules, module, None)  # as if not installed
    (tmp_path / name).write_bytes(head)
    with pytest.raises(ValueError, match=f"{name}: .* needs the package {package}: pip install {package}$"):
        read_metadata(tmp_path / name)
    if module == "pillow_heif":
        with pytest.raises(ValueError, match="pip install pillow-heif$"):
            read_exposures([], tmp_path / "out.heic")


def test_raw_beside_its_developed_picture_is_left_out(tmp_path):
    for name in ("a.NEF", "a.JPG", "b.nef", "c.jpg", "sub/c.nef"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.nef", "c.jpg"]
    assert [path.name for path in list_images(tmp_path, recursive=True)] == ["a.JPG", "b.nef", "c.jpg", "c.nef"]


@pytest.mark.parametrize("suffix", [".heic", ".avif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (3,), (4,)], ids=["gray", "colour", "alpha"])
def test_heic_and_avif_come_close_and_carry_metadata(tmp_path, rng, suffix, dtype, channels):
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    image = cv2.resize(rng.random((5, 7, *channels)), (90, 61))
    image = np.rint(image * np.iinfo(dtype).max).astype(dtype)
    Image.new("RGB", (90, 61)).save(tmp_path / "in.jpg", exif=camera_exif(orientation=6), icc_profile=SRGB)
    write_image(tmp_path / f"out{suffix}", image, read_photo(tmp_path / "in.jpg")[1])
    again, metadata = read_photo(tmp_path / f"out{suffix}")
    deep = suffix == ".heic" and dtype == np.uint16
    assert again.dtype == (np.uint16 if deep else np.uint8)
    if suffix == ".avif" and not channels:
        again = cv2.cvtColor(again, cv2.COLOR_BGR2GRAY)  # it has no gray
    assert again.shape == image.shape
    error = np.abs(again / np.iinfo(again.dtype).max - image / np.iinfo(dtype).max)
    assert error.mean() < (2.5 / 1023 if deep else 1.5 / 255)
    assert metadata.exposure_time == pytest.approx(1 / 125) and metadata.icc == SRGB and metadata.orientation == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".heic", ".avif"])
def test_heic_and_avif_are_turned(tmp_path, rng, suffix, orientation):
    """The file's own transformation counts, once; libraries write it for the EXIF orientation that they are given."""
    if suffix == ".heic":
        heif = pytest.importorskip("pillow_heif")
    image = np.rint(cv2.resize(rng.random((3, 4, 3)), (64, 48)) * 255).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{suffix}"
    if suffix == ".heic":
        heif.encode("BGR", (64, 48), image.tobytes(), path, exif=exif.tobytes(), quality=95, chroma=444)
    else:
        Image.fromarray(image[..., ::-1].copy()).save(path, exif=exif.tobytes(), quality=95, subsampling="4:4:4")
    again, _ = read_photo(path)
    expected = upright(image, orientation)
    assert again.shape == expected.shape and np.abs(again.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("suffix", [".heic", ".avif"])
def test_half_a_heic_or_avif_is_refused(tmp_path, rng, suffix):
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    write_image(tmp_path / f"a{suffix}", rng.integers(0, 255, (64, 64, 3), np.uint8))
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"a{suffix}: damaged"):
        read_photo(tmp_path / f"a{suffix}")
