"""utils/fusing/hdr.py and utils/pictures/hdr.py: files that hold more light than white, read by other programs."""

import io
import re
import shutil
import struct
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.test_camera import dng
from tests.test_ghost import PATCH, freed, moving_scene
from tests.test_image import SRGB, camera_exif
from utils.fusing.fusion import Fuser, fuse_scenes, read_exposures
from utils.fusing.hdr import FINE, gain_map, light_size, rendition, scene_light
from utils.fusing.tiles import on_device
from utils.pictures.hdr import GainMap, _end_of_notes, write_pq, write_radiance
from utils.pictures.image import read_photo, read_radiance, write_image
from utils.pictures.light import REC2020, Encoding, from_srgb, profile
from utils.pictures.metadata import Metadata, read_metadata
from utils.pictures.scenes import Scene, find_scenes, with_outputs
from utils.stack.response import Response

LUMINANCE = np.array([0.0722, 0.7152, 0.2126])


def as_srgb(light):
    light = np.clip(light, 0, 1)
    return np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def bracket(rng, shape=(120, 160), stops=(0, 2, 4, 6), dtype=np.uint8):
    """Smooth light (H, W, 3) BGR of 9 stops, whose brightest just clips in the darkest shot, and the shots."""
    light = 2.0 ** cv2.resize(rng.uniform(-9, 0, (6, 8)), shape[::-1])[..., None] * np.array([0.8, 0.9, 1])
    top = np.iinfo(dtype).max
    return light, [np.rint(as_srgb(light * 2**stop) * top).astype(dtype) for stop in stops]


@pytest.fixture
def ultra(tmp_path, rng):
    """An Ultra HDR JPEG with EXIF and a profile, its gain in stops (h, w), and what it is meant to show, linear."""
    picture = np.rint(255 * cv2.resize(rng.random((6, 8, 3)), (320, 240))).astype(np.uint8)
    gain = GainMap(np.tile(np.linspace(0, 255, 80), (60, 1)).astype(np.uint8), 3.5)
    Image.new("RGB", (4, 4)).save(tmp_path / "in.jpg", exif=camera_exif(6), icc_profile=SRGB)
    metadata = read_metadata(tmp_path / "in.jpg")
    for name, its in (("a", gain), ("plain", None)):
        write_image(tmp_path / f"{name}.jpg", picture, metadata, gain=its)
    shown = from_srgb(cv2.imread(str(tmp_path / "plain.jpg")) / 255)
    stops = cv2.resize(gain.levels.astype(np.float32), (320, 240)) / 255 * 3.5
    return tmp_path / "a.jpg", (shown + 1 / 64) * 2 ** stops[..., None] - 1 / 64


@pytest.fixture
def fuser(pyramid):
    return Fuser(on_device(pyramid, "cpu"))


def test_old_viewers_see_the_same_picture_and_metadata(ultra):
    path, _ = ultra
    for read in (lambda p: cv2.imread(str(p)), lambda p: np.asarray(Image.open(p)), lambda p: read_photo(p)[0]):
        np.testing.assert_array_equal(read(path), read(path.with_name("plain.jpg")))
    own, plain = (read_metadata(path.with_name(name)) for name in ("a.jpg", "plain.jpg"))
    assert own.icc == plain.icc == SRGB and own.exposure_time == plain.exposure_time and own.exif[0][271] == "Acme"


def test_libultrahdr_decodes_it(ultra):
    codecs = pytest.importorskip("imagecodecs")
    path, expected = ultra
    decoded = codecs.ultrahdr_decode(path.read_bytes()).astype(np.float32)[..., 2::-1]
    error = np.abs(np.log2((decoded + 1 / 64) / (expected + 1 / 64)))
    assert np.median(error) < 0.02 and np.percentile(error, 99) < 0.1


def test_libvips_decodes_it(ultra):
    vips = pytest.importorskip("pyvips")
    path, expected = ultra
    try:
        picture = vips.Image.uhdrload(str(path))
    except vips.Error:
        pytest.skip("libvips without libultrahdr")
    assert picture.get("gainmap-hdr-capacity-max") == pytest.approx(2**3.5, rel=1e-4)
    error = np.abs(np.log2((picture.uhdr2scRGB().numpy()[..., 2::-1] + 1 / 64) / (expected + 1 / 64)))
    assert np.median(error) < 0.02 and np.percentile(error, 99) < 0.1


def test_exiftool_finds_the_map_and_its_numbers(ultra):
    exiftool = shutil.which("exiftool") or pytest.skip("exiftool is not installed")
    path, _ = ultra

    def tool(*arguments):
        return subprocess.run([exiftool, *arguments], capture_output=True, check=True).stdout

    assert b"GainMap" in tool("-s3", "-a", "-DirectoryItemSemantic", str(path))
    assert tool("-s3", "-NumberOfImages", str(path)) == b"2\n"
    second = path.with_name("map.jpg")
    second.write_bytes(tool("-b", "-MPImage2", str(path)))
    assert float(tool("-s3", "-GainMapMax", str(second))) == 3.5
    levels = cv2.imread(str(second), cv2.IMREAD_UNCHANGED)
    assert levels.shape == (60, 80) and np.abs(levels - np.linspace(0, 255, 80)).mean() < 2
    assert path.read_bytes().endswith(second.read_bytes())


def test_pillow_finds_both_pictures_and_their_bytes(ultra):
    path, _ = ultra
    data = path.read_bytes()
    with Image.open(path) as picture:
        version, number, (first, second) = (picture._getmp()[tag] for tag in (0xB000, 0xB001, 0xB002))
        assert (version, number) == (b"0100", 2) and first["Attribute"]["MPType"] == "Baseline MP Primary Image"
        assert {first[f"EntryNo{k}"] for k in (1, 2)} | {second[f"EntryNo{k}"] for k in (1, 2)} == {0}
        assert first["DataOffset"] == 0 and first["Size"] + second["Size"] == len(data)
        assert second["Attribute"]["MPType"] == "Undefined" and not any(
            entry["Attribute"][f"{kind}Flag"]
            for entry in (first, second)
            for kind in ("DependentParentImage", "DependentChildImage", "RepresentativeImage")
        )
    with Image.open(io.BytesIO(data[first["Size"] :])) as own:
        levels, steps = np.asarray(own), np.array(own.quantization[0]).reshape(8, 8)
    for whole in (data, data[first["Size"] :]):
        at = 2
        while whole[at + 1] != 0xDA:  # from segment to segment up to the pixels
            assert whole[at] == 0xFF and 0xC0 <= whole[at + 1] <= 0xEF
            at += 2 + int.from_bytes(whole[at + 2 : at + 4], "big")
    assert np.abs(levels - np.linspace(0, 255, 80)).mean() < 2
    assert steps[0, 0] == 6 and steps.max() == 32 and (steps == steps.T).all()  # fine for skies, coarse for detail
    assert (np.diff(steps, axis=1) >= 0).all() and steps[0, 1] == 12 and steps[0, 3] == 25 and steps[0, 4] == 32


@pytest.mark.parametrize("markers", [[], [0xE0], [0xEF], [0xE0, 0xE1, 0xE2, 0xEF, 0xE0]])
@pytest.mark.parametrize("then", [0xDF, 0xF0, 0xDB, 0xFE])
def test_new_notes_stand_behind_the_old_ones(markers, then):
    """Behind the last of the segments APP0 to APP15 that follow the start."""
    notes = b"".join(bytes([0xFF, marker]) + struct.pack(">H", 2 + 300 * k) + bytes(300 * k)
                     for k, marker in enumerate(markers))  # fmt: skip
    start = b"\xff\xd8" + notes
    assert _end_of_notes(start + bytes([0xFF, then, 0, 4, 0, 0, 0xFF, 0xE1, 0, 2])) == len(start)
    assert _end_of_notes(start + bytes([0, 0xE0, 0, 4, 0, 0])) == len(start)  # damaged: no marker


def test_iso_and_adobe_are_told_the_same(ultra):
    data = ultra[0].read_bytes()
    head, block = data.split(b"urn:iso:std:iso:ts:21496:-1\0")[1:]
    assert head.startswith(bytes(4) + b"\xff\xe2")  # the picture's: versions alone
    *versions, flags = struct.unpack_from(">HHB", block)
    numbers = np.array(struct.unpack_from(">14I", block, 5), float).reshape(7, 2)
    assert versions == [0, 0] and flags == 0x40
    np.testing.assert_allclose(numbers[:, 0] / numbers[:, 1], [0, 3.5, 0, 3.5, 1, 1 / 64, 1 / 64])
    noted = {key: float(value) for key, value in re.findall(rb'hdrgm:(\w+)="([\d.]+)"', data)}
    assert noted == {b"Version": 1, b"GainMapMin": 0, b"GainMapMax": 3.5, b"Gamma": 1, b"OffsetSDR": 1 / 64,
                     b"OffsetHDR": 1 / 64, b"HDRCapacityMin": 0, b"HDRCapacityMax": 3.5}  # fmt: skip
    length = int(re.search(rb'Item:Length="(\d+)"', data)[1])
    assert data[-length:].startswith(b"\xff\xd8\xff") and data[:-length].endswith(b"\xff\xd9")


def test_only_light_in_colour_has_a_profile(tmp_path, rng):
    light = rng.uniform(0.5, 1, (3, 4, 3)).astype(np.float32)
    wide = Metadata(icc=profile(Encoding(REC2020)))
    for name, its, known in (("colour", light, True), ("gray", light[..., 0].copy(), False)):
        write_radiance(tmp_path / f"{name}.tif", its, wide, "")
        with Image.open(tmp_path / f"{name}.tif") if not known else open(tmp_path / f"{name}.tif", "rb") as file:
            found = b"acsp" in file.read() if known else 34675 in file.tag_v2
        assert found == known
    from_2020 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
    expected = (light[..., ::-1] @ from_2020.T)[..., ::-1]
    np.testing.assert_allclose(cv2.imread(f"{tmp_path}/colour.tif", cv2.IMREAD_UNCHANGED), expected, atol=1e-3)


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_light_of_a_scene_is_found_up_to_its_unit(rng, noted, dtype):
    light, shots = bracket(rng, dtype=dtype)
    order = [2, 0, 3, 1]
    found = scene_light([shots[k] for k in order], [10 + 2.0 * k for k in order] if noted else None)
    error = np.log2(found / light)
    assert np.median(np.abs(error)) < (0.05 if noted else 0.15)  # 1 is white in the darkest shot
    strips = [np.vstack([shot] * 30) for shot in shots]
    np.testing.assert_allclose(scene_light(strips, [0, 2, 4, 6])[-120:], scene_light(shots, [0, 2, 4, 6]), rtol=1e-2)


def test_noted_exposures_that_cannot_be_true_do_not_count(rng):
    _, shots = bracket(rng)
    np.testing.assert_allclose(scene_light(shots, [5, 5, 5, 5.01]), scene_light(shots), rtol=0.02)


@pytest.mark.parametrize("noted", [0.39, 0.41, 1.0, 2.49, 2.51, 0, None])
def test_the_light_is_raised_to_the_power_that_the_noted_exposures_ask_for(rng, monkeypatch, noted):
    """From 0.4 to 2.5; otherwise to that by which, over the mid-tones, the curve is nearest to sRGB's."""
    shots = bracket(rng, stops=(1, 4))[1]
    response = Response(1.9, 0.2, (0.0, 3.0), ((0.0,) * 3,) * 2)
    monkeypatch.setattr("utils.fusing.hdr.fit_response", lambda *_: response)
    values = [0.1 + 0.8 * k / 49 for k in range(50)]
    own = np.log([0.2 * v**1.9 / (1.2 - v**1.9) for v in values])
    usual = np.log([linear(255 * v) for v in values])
    power = noted if noted and 0.4 <= noted <= 2.5 else np.linalg.lstsq(own[:, None], usual, rcond=None)[0][0]
    light = scene_light(shots, None if noted is None else [5, 5 + 3 * noted])
    np.testing.assert_allclose(light, response.merge(shots) ** power, rtol=1e-4)


def test_the_gain_leads_from_the_picture_to_the_light(rng):
    light, _ = bracket(rng)
    picture = np.rint(as_srgb(0.9 * light**0.5) * 255).astype(np.uint8)  # tone mapping: half of the stops
    gain = gain_map(picture, light.astype(np.float32) * 7)  # in any unit
    shown, meant = (x @ LUMINANCE for x in (from_srgb(picture / 255), light))
    inside = (shown > 0.1) & (shown < 0.4)
    meant = meant * np.median(shown[inside]) / np.median(meant[inside])
    expected = np.log2((meant + 1 / 64) / (shown + 1 / 64)).clip(0, 4) * (meant > 0.03)  # there is none in the dark
    small = cv2.resize(expected, gain.levels.shape[::-1], interpolation=cv2.INTER_AREA)
    light = cv2.resize(meant, small.shape[::-1], interpolation=cv2.INTER_AREA)
    error = np.abs(gain.levels * (gain.most / 255) - small)
    assert error[(light < 0.015) | (light > 0.12)].max() < 0.1 and gain.levels.max() == 255
    full = rendition(picture, gain) @ LUMINANCE
    bright = (expected > 0.05) & (meant > 0.12)
    assert np.abs(np.log2(full / meant))[bright].max() < 0.2


def blocks(*values):
    """A picture of 30x30 squares side by side, each of one value or colour."""
    return np.repeat(np.repeat(np.array([values]), 30, 0), 30, 1)


def linear(level):
    """The light of a level of sRGB in 0..255 (IEC 61966-2-1)."""
    x = level / 255
    return x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(
    "levels, lights, unit",
    [
        # middle tones twice, of which the median counts, others; light in units of 5
        ([120, 120, 130, 200, 250, 20, 60], [1.0, 1.0, 9.0, 5.0, 90.0, 0.3, 0.45], linear(120) / 1.0),
        ([120, 90, 95, 180, 175], [2.0, 0.0, 0.0, 9.0, 1.0], linear(120) / 2.0),  # where no light is, none is compared
        ([200, 200, 255, 0], [3.0, 3.0, 80.0, 7.0], linear(200) / 3.0),  # no middle tones: all that is not black
    ],
)
def test_gain_of_squares_is_the_formula(levels, lights, unit, alpha):
    picture = blocks(*[[level] * 3 for level in levels]).astype(np.uint8)
    picture = np.dstack([picture, picture[..., :1]]) if alpha else picture
    gain = gain_map(picture, blocks(*[[light] * 3 for light in lights]).astype(np.float32) * 5)
    assert gain.levels.shape == (20, 20 * len(levels))
    stops = gain.levels[10, 10::20] * (gain.most / 255)
    for level, light, found in zip(levels, lights, stops, strict=True):
        t = min(max((light * unit - 0.03) / 0.07, 0), 1)
        wanted = np.log2((light * unit + 1 / 64) / (linear(level) + 1 / 64))
        expected = min(max(wanted, 0), 4) * (3 * t**2 - 2 * t**3)
        assert found == pytest.approx(expected, abs=0.55 * gain.most / 255)
    shown = rendition(picture, gain)[15, 15::30]
    expected = (np.array([linear(level) for level in levels]) + 1 / 64) * 2**stops - 1 / 64
    np.testing.assert_allclose(shown, np.transpose([expected] * 3), atol=2e-4 * 2**gain.most)


def test_gain_is_that_of_luminance():
    picture = blocks([120] * 3, [120] * 3, [40, 90, 200], [220, 40, 90]).astype(np.uint8)
    colours = np.array([[1, 1, 1], [1, 1, 1], [4, 1, 0.5], [0.1, 2, 6]], np.float32)
    gain = gain_map(picture, blocks(*colours).astype(np.float32))
    stops = gain.levels[10, 10::20] * (gain.most / 255)
    for colour, light, found in zip(picture[0, ::30], colours, stops, strict=True):
        there, shown = light @ LUMINANCE * linear(120), np.array([linear(x) for x in colour]) @ LUMINANCE
        expected = max(np.log2((there + 1 / 64) / (shown + 1 / 64)), 0)
        assert found == pytest.approx(expected, abs=0.55 * gain.most / 255 + 1e-3)


@pytest.mark.parametrize("channels", [(), (4,)])
def test_light_of_any_layout_and_size(rng, channels):
    light, shots = bracket(rng, stops=(0, 0.9))
    shots = [np.dstack([shot, shot[..., :1]]) if channels else shot[..., 1] for shot in shots]
    light = light if channels else light[..., 1]
    known = light > 2.0**-6
    for noted in ([0, 0.9], [3, 3.9]):
        found = scene_light(shots, noted)
        assert found.shape == light.shape and found.dtype == np.float32
        assert np.median(np.abs(np.log2(found / light))[known]) < 0.05
    small = scene_light(shots, [0, 0.9], (60, 80))
    resized = cv2.resize(found, (80, 60), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(small, resized, rtol=0.1, atol=0.002)
    same = scene_light([shots[1]] * 2, [0, 2])  # one shot twice: there is no gap to believe
    assert same.max() == pytest.approx(1, rel=0.02)


def test_the_gain_is_bounded_and_smooth_where_all_shots_clip(rng):
    light = np.tile(2.0 ** np.linspace(-8, 12, 256)[None, :, None], (64, 1, 3))  # 12 stops above white of the darkest
    shots = [np.rint(as_srgb(light * 2.0**stop) * 255).astype(np.uint8) for stop in (0, 3, 6)]
    picture = np.rint(as_srgb(light ** (1 / 3) / 2) * 255).astype(np.uint8)
    gain = gain_map(picture, scene_light(shots, [0, 3, 6]))
    stops = gain.levels[0] * (gain.most / 255)
    assert stops.max() <= 4 and np.abs(np.diff(stops)).max() < 0.35  # per 1/13 of a stop of the scene


def test_the_gain_is_that_of_the_still_scene_where_something_moved():
    """Where a thing is replaced, nothing of it stays in the gain: no edge, no shine."""
    still, moved = moving_scene()
    picture = still[1]

    def stops(shots):
        gain = gain_map(picture, scene_light(shots, size=light_size(*picture.shape[:2])))
        return gain.levels * (gain.most / 255)

    truth, before, after = stops(still), stops(moved), stops(freed(moved, reference=1))
    place = tuple(slice(part.start * 2 // 3 - 4, part.stop * 2 // 3 + 4) for part in PATCH)
    assert after.max() <= 4
    assert np.abs(before - truth)[place].max() > 2 and np.abs(after - truth).max() < 0.15


def test_a_flat_or_black_picture_has_a_map_too(rng):
    for value in (0, 128, 255):
        picture = np.full((40, 50, 3), value, np.uint8)
        gain = gain_map(picture, np.full((20, 25, 3), value / 255, np.float32))
        assert gain.most == 0.25 and not gain.levels.any()


def test_the_map_of_a_large_picture_has_a_quarter_of_its_sides():
    assert light_size(4000, 6000) == light_size(4000, 6000, FINE) == (1000, 1500)
    assert light_size(1024, 2049) == (256, 512) and light_size(1024, 2048) == (1024, 2048)  # from 2 megapixels on
    assert light_size(600, 900, FINE) == (400, 600) and light_size(600, 900) == (600, 900)
    assert light_size(1, 1, FINE) == (1, 1)


@pytest.mark.parametrize("suffix", [".heic", ".avif"])
def test_pq_is_read_back_with_its_tags(tmp_path, rng, suffix):
    if suffix == ".heic":
        heif = pytest.importorskip("pillow_heif")
    else:
        pytest.importorskip("imagecodecs")
    light = (cv2.resize(rng.uniform(0.2, 1, (6, 8, 3)), (160, 120)) * 6).astype(np.float32)
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (4, 4)).save(tmp_path / "in.jpg", exif=camera_exif())
    metadata = read_metadata(tmp_path / "in.jpg")
    if suffix == ".heic":
        write_pq(path, light, metadata)
        assert read_metadata(path).exif[0][271] == "Acme"
        noted = heif.open_heif(path).info["nclx_profile"]
        assert (noted["color_primaries"], noted["transfer_characteristics"], noted["matrix_coefficients"]) == (9, 16, 9)
        assert heif.open_heif(path).info["bit_depth"] == 10 and noted["full_range_flag"] == 1
    else:
        with pytest.warns(UserWarning, match="EXIF is left out"):
            write_pq(path, light, metadata)
    again, metadata = read_radiance(path)
    assert np.median(np.abs(again / light - 1)) < 0.01 and metadata.encoding == Encoding(REC2020, "PQ")
    if exiftool := shutil.which("exiftool"):
        codes = subprocess.run(
            [exiftool, "-s3", "-n", "-ColorPrimaries", "-TransferCharacteristics", "-MatrixCoefficients", path],
            capture_output=True,
        )
        assert codes.stdout.split() == [b"9", b"16", b"9"]


def test_pq_of_a_wide_profile_keeps_its_colours(tmp_path, rng):
    pytest.importorskip("pillow_heif")
    light = cv2.resize(rng.uniform(0.2, 1, (6, 8, 3)), (160, 120)).astype(np.float32)
    write_pq(tmp_path / "a.heic", light, Metadata(icc=profile(Encoding(REC2020))))
    from_2020 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
    expected = (light[..., ::-1] @ from_2020.T)[..., ::-1]
    assert np.abs(read_radiance(tmp_path / "a.heic")[0] - expected).mean() < 0.01


@pytest.mark.parametrize("quality, finer", [(100, 100), (92, 99), (85, 99), (84, 98), (20, 90)])
def test_encoders_are_given_the_numbers_of_smpte_2084(tmp_path, monkeypatch, rng, quality, finer):
    """Of 10 bits; 1 is 203 of 10,000 nits. AVIF is coded finer than it is asked for, as a step of PQ is more light."""
    light = rng.uniform(0, 40, (3, 4, 3)).astype(np.float32)
    given = {}

    def avif(numbers, level, **options):
        assert options == {"speed": 8, "bitspersample": 10, "pixelformat": "yuv444"} | {
            "primaries": 9, "transfer": 16, "matrix": 9}  # fmt: skip
        given[".avif"], given["level"] = numbers, level
        return b"made"

    def heif(mode, size, data, file, **options):
        names = {"color_primaries": 9, "transfer_characteristics": 16, "matrix_coefficients": 9, "full_range_flag": 1}
        assert (mode, size) == ("RGB;16", (4, 3)) and {key: options[key] for key in names} == names
        assert (options["quality"], options["chroma"]) == (quality, 444) and "exif" not in options
        given[".heic"] = np.frombuffer(data, np.uint16).reshape(3, 4, 3) / 64
        file.write(b"made")

    monkeypatch.setitem(sys.modules, "imagecodecs", types.SimpleNamespace(avif_encode=avif))
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(encode=heif))
    raised = (light[..., ::-1].astype(float) * 203 / 10_000) ** 0.1593017578125
    expected = 1023 * ((0.8359375 + 18.8515625 * raised) / (1 + 18.6875 * raised)) ** 78.84375
    for suffix in (".avif", ".heic"):
        write_pq(tmp_path / f"a{suffix}", light, Metadata(icc=profile(Encoding(REC2020))), quality)
        off = given[suffix] - expected
        assert np.abs(off).max() < 0.8 and abs(off.mean()) < 0.25
        assert (tmp_path / f"a{suffix}").read_bytes() == b"made"
    assert given["level"] == finer


@pytest.mark.parametrize("suffix, precision", [(".exr", 1e-3), (".hdr", 1 / 100), (".tif", 0)])
@pytest.mark.parametrize("gray", [False, True])
def test_radiance_is_read_back_by_others(tmp_path, rng, suffix, precision, gray):
    if suffix == ".exr":
        exr = pytest.importorskip("OpenEXR")
    light = bracket(rng)[0].astype(np.float32) * 30
    light = light[..., 1].copy() if gray else light
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (4, 4)).save(tmp_path / "in.jpg", exif=camera_exif())
    write_radiance(path, light, read_metadata(tmp_path / "in.jpg"), "1 is one")
    expected = np.dstack([light] * 3) if suffix == ".hdr" and gray else light
    np.testing.assert_allclose(read_radiance(path)[0], expected, rtol=precision)
    if suffix == ".exr":
        header = exr.File(str(path), header_only=True).header()
        assert header["comments"] == "1 is one"
        np.testing.assert_allclose(
            header["chromaticities"], (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329), atol=1e-6
        )
    elif suffix == ".tif":
        assert read_metadata(path).exif[0][270] == "1 is one" and read_metadata(path).exif[0][271] == "Acme"
    else:
        assert b"\n# 1 is one\nPRIMARIES= 0.64 0.33" in path.read_bytes()[:200]
    oiio = pytest.importorskip("OpenImageIO")
    theirs = oiio.ImageInput.open(str(path)).read_image("float").squeeze()
    np.testing.assert_allclose(theirs if gray and suffix != ".hdr" else theirs[..., 2::-1], expected, rtol=precision)
    if suffix != ".exr":  # OpenCV's wheel reads no EXR
        np.testing.assert_allclose(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), expected, rtol=precision)


def test_radiance_of_wide_shots_becomes_rec_709_and_large_values_fit(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    light = np.full((3, 4, 3), 1e6, np.float32)
    write_radiance(tmp_path / "a.exr", light, Metadata(icc=profile(Encoding(REC2020))), "")
    assert exr.File(str(tmp_path / "a.exr")).channels()["RGB"].pixels.dtype == np.float32
    np.testing.assert_allclose(read_radiance(tmp_path / "a.exr")[0], light, rtol=1e-4)  # white stays white


# From files to files


def saved(folder, shots, suffix=".png", times=(1, 4, 16, 64)):
    """Writes shots with their exposures noted; returns the paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for k, (shot, time) in enumerate(zip(shots, times, strict=False)):
        exif = Image.Exif()
        exif[271] = "Acme"
        exif.get_ifd(34665).update({33434: time / 1000, 33437: 8.0, 34855: 100})
        Image.fromarray(shot[..., ::-1] if shot.ndim == 3 else shot).save(folder / f"{k}{suffix}", exif=exif.tobytes())
        paths.append(folder / f"{k}{suffix}")
    return paths


def test_with_hdr_the_picture_is_the_same(tmp_path, rng, fuser):
    codecs = pytest.importorskip("imagecodecs")
    light, shots = bracket(rng)
    paths = saved(tmp_path / "in", shots)
    for name, hdr in (("hdr", True), ("plain", False)):
        fuser.fuse_files(paths, tmp_path / f"{name}.jpg", hdr=hdr)
    np.testing.assert_array_equal(*(cv2.imread(str(tmp_path / f"{name}.jpg")) for name in ("hdr", "plain")))
    assert read_metadata(tmp_path / "hdr.jpg").exif[0][271] == "Acme"
    decoded = codecs.ultrahdr_decode((tmp_path / "hdr.jpg").read_bytes()).astype(np.float32)[..., 2::-1]
    in_memory = fuser.fuse(shots, [0, 2, 4, 6], hdr=True)
    assert np.median(np.abs(np.log2((decoded + 0.01) / (in_memory + 0.01)))) < 0.05
    bright = decoded @ LUMINANCE > 1
    error = np.log2((decoded @ LUMINANCE)[bright] / (light @ LUMINANCE)[bright])
    assert bright.any() and np.median(np.abs(error - np.median(error))) < 0.15


def test_radiance_files_of_a_bracket_hold_its_light(tmp_path, rng, fuser):
    pytest.importorskip("OpenEXR")
    light, shots = bracket(rng)
    paths = saved(tmp_path / "in", shots)
    for name in ("a.exr", "a.hdr", "a.tif"):
        fuser.fuse_files(paths, tmp_path / name, hdr=name == "a.tif")
        assert np.median(np.abs(np.log2(read_radiance(tmp_path / name)[0] / light))) < 0.05
    note = read_metadata(tmp_path / "a.tif").exif[0][270]
    assert note == "linear light; 1 is white in the darkest of 4 exposures, EV 16.0 at ISO 100"  # 1/1000 s at f/8


def test_camera_raw_becomes_ultra_hdr(tmp_path, rng, fuser):
    pytest.importorskip("rawpy")
    codecs = pytest.importorskip("imagecodecs")
    light = bracket(rng, (64, 96))[0][..., ::-1]
    paths = [tmp_path / f"{k}.dng" for k in range(3)]
    for k, path in enumerate(paths):
        path.write_bytes(dng(light * 4.0**k, seconds=4.0**k / 1000))
    fuser.fuse_files(paths, tmp_path / "a.jpg", hdr=True)
    decoded = codecs.ultrahdr_decode((tmp_path / "a.jpg").read_bytes()).astype(np.float32)
    assert decoded.shape == (64, 96, 4) and decoded.max() > 1.2


def test_one_radiance_map_gives_its_own_light(tmp_path, rng, fuser):
    codecs = pytest.importorskip("imagecodecs")
    light = bracket(rng)[0].astype(np.float32) * 40
    light[:2, :2] = 5000  # the sun: more than the exposures of a map hold
    metadata = Metadata()
    write_radiance(tmp_path / "a.tif", light, metadata, "")
    fuser.fuse_files([tmp_path / "a.tif"], tmp_path / "a.hdr")
    np.testing.assert_allclose(read_radiance(tmp_path / "a.hdr")[0], light, rtol=0.02)
    fuser.fuse_files([tmp_path / "a.tif"], tmp_path / "a.jpg", hdr=True)
    decoded = codecs.ultrahdr_decode((tmp_path / "a.jpg").read_bytes()).astype(np.float32)
    assert decoded[..., :3].max() > 1.5


def test_ultra_hdr_shots_are_fused_by_their_base(tmp_path, rng, fuser, ultra):
    """Phones write such files: the result holds one map at most, its own."""
    path, _ = ultra
    _, shots = bracket(rng, (240, 320))
    gain = GainMap(np.full((60, 80), 9, np.uint8), 2.0)
    for k, shot in enumerate(shots):
        write_image(tmp_path / f"{k}.jpg", shot, gain=gain)
        write_image(tmp_path / f"p{k}.jpg", shot)
    for name in ("", "p"):
        fuser.fuse_files([tmp_path / f"{name}{k}.jpg" for k in range(4)], tmp_path / f"out{name}.jpg")
    assert (tmp_path / "out.jpg").read_bytes() == (tmp_path / "outp.jpg").read_bytes()
    assert b"hdrgm" not in (tmp_path / "out.jpg").read_bytes() and b"21496" not in (tmp_path / "out.jpg").read_bytes()
    fuser.fuse_files([tmp_path / f"{k}.jpg" for k in range(4)], tmp_path / "again.jpg", hdr=True)
    assert (tmp_path / "again.jpg").read_bytes().count(b"hdrgm:GainMapMax") == 1


def test_a_folder_becomes_ultra_hdr_jpegs(tmp_path, rng, fuser):
    _, shots = bracket(rng)
    for name in ("a", "b"):
        (tmp_path / "in").mkdir(exist_ok=True)
        saved(tmp_path / "in" / name, shots)
    scenes = with_outputs(find_scenes(tmp_path / "in")[0], tmp_path / "out", hdr=True)
    assert [scene.out.name for scene in scenes] == ["a.jpg", "b.jpg"]
    assert not any(end.error for end in fuse_scenes(scenes, lambda: fuser, hdr=True))
    assert all(b"hdrgm" in scene.out.read_bytes() for scene in scenes)
    heic = [Scene("c", [tmp_path / "c.heic"]), Scene("d", [tmp_path / "d.nef"])]
    assert [scene.out.name for scene in with_outputs(heic, tmp_path, hdr=True)] == ["c.heic", "d.jpg"]


def test_metadata_without_room_is_left_out_and_the_map_is_kept(tmp_path, rng):
    exif = camera_exif()
    exif[270] = "x" * 70000  # more than a segment of JPEG
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", exif=exif)
    picture = rng.integers(0, 255, (40, 60, 3), np.uint8)
    with pytest.warns(UserWarning, match="EXIF and colour profile do not fit"):
        write_image(
            tmp_path / "b.jpg", picture, read_metadata(tmp_path / "a.png"), gain=GainMap(picture[::2, ::2, 0], 2.0)
        )
    assert b"hdrgm" in (tmp_path / "b.jpg").read_bytes() and read_photo(tmp_path / "b.jpg")[0].shape == (40, 60, 3)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp"])
def test_what_cannot_hold_hdr_is_refused_before_anything_is_read(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: \.\w+ cannot hold HDR, but \.jpg, .* can$"):
        read_exposures([tmp_path / "none.jpg", tmp_path / "nor.jpg"], tmp_path / name, hdr=True)


@pytest.mark.parametrize("suffix", [".jpg", ".heic"])
def test_gray_pictures_are_refused_where_hdr_has_colour(tmp_path, rng, fuser, suffix):
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    _, shots = bracket(rng)
    paths = saved(tmp_path / "in", [shot[..., 1] for shot in shots])
    with pytest.raises(ValueError, match=f"a{suffix}: gray pictures cannot become HDR in {suffix}"):
        fuser.fuse_files(paths, tmp_path / f"a{suffix}", hdr=True)
    fuser.fuse_files(paths, tmp_path / "a.tif", hdr=True)
    assert read_radiance(tmp_path / "a.tif")[0].shape == (120, 160)
