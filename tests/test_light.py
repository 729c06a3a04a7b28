"""utils/pictures/light.py: what each format notes of its colours is read as it is meant, or refused."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.test_image import SRGB
from utils.fusing.fusion import read_exposures
from utils.pictures.image import read_photo, read_radiance, write_image
from utils.pictures.light import PRIMARIES, REC709, REC2020, XYZ, Encoding, profile, same_colours, to_light, to_pq
from utils.pictures.metadata import Metadata, add_to_tiff, read_metadata

TO_XYZ = np.array(  # Rec. 709, as published
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
FROM_2020 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])  # BT.2087
DISPLAY_P3, ADOBE = PRIMARIES[12], (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, 0.3127, 0.329)
ADOBE_CHUNK = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)  # white first


def colours(rng, shape=(40, 60)):
    """Smooth linear R, G, B (H, W, 3) in [0, 1], not saturated."""
    return cv2.resize(rng.uniform(0.1, 0.9, (4, 6, 3)), shape[::-1]).astype(np.float32)


def exr(planes, primaries=None):
    """The bytes of an uncompressed OpenEXR of {name: (plane, step)}: each holds every `step`-th pixel of each side."""
    height, width = next(plane.shape for plane, step in planes.values() if step == 1)

    def attribute(name, kind, data):
        return name + b"\0" + kind + b"\0" + struct.pack("<I", len(data)) + data

    kinds = [name.encode() + b"\0" + struct.pack("<iIii", 2, 0, step, step) for name, (_, step) in planes.items()]
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    head = struct.pack("<II", 20000630, 2) + attribute(b"channels", b"chlist", b"".join(kinds) + b"\0")
    head += attribute(b"compression", b"compression", b"\0") + attribute(b"lineOrder", b"lineOrder", b"\0")
    head += attribute(b"dataWindow", b"box2i", window) + attribute(b"displayWindow", b"box2i", window)
    head += attribute(b"pixelAspectRatio", b"float", struct.pack("<f", 1))
    head += attribute(b"screenWindowCenter", b"v2f", bytes(8)) + attribute(b"screenWindowWidth", b"float", bytes(4))
    head += attribute(b"chromaticities", b"chromaticities", struct.pack("<8f", *primaries)) if primaries else b""
    offsets, lines, start = b"", b"", len(head) + 1 + 8 * height
    for y in range(height):
        rows = [plane[y // step].astype("<f4").tobytes() for plane, step in planes.values() if y % step == 0]
        offsets += struct.pack("<Q", start + len(lines))
        lines += struct.pack("<iI", y, sum(map(len, rows))) + b"".join(rows)
    return head + b"\0" + offsets + lines


@pytest.mark.parametrize("primaries, matrix", [(XYZ, TO_XYZ), (REC2020, np.linalg.inv(FROM_2020)), (None, np.eye(3))])
def test_the_primaries_of_an_exr_become_those_of_rec_709(tmp_path, rng, primaries, matrix):
    pytest.importorskip("OpenEXR")
    light = colours(rng)
    red, green, blue = np.moveaxis(light @ matrix.T, 2, 0)
    (tmp_path / "a.exr").write_bytes(exr({"B": (blue, 1), "G": (green, 1), "R": (red, 1)}, primaries))
    np.testing.assert_allclose(read_radiance(tmp_path / "a.exr")[0], light[..., ::-1], atol=5e-4)


def test_white_stays_white_whatever_white_a_file_has(tmp_path):
    """ACES has the white of D60, ProPhoto D50."""
    pytest.importorskip("OpenEXR")
    gray = np.full((8, 9), 0.5)
    for primaries in (
        (0.7347, 0.2653, 0, 1, 0.0001, -0.077, 0.32168, 0.33767),
        (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001, 0.3457, 0.3585),
    ):
        (tmp_path / "a.exr").write_bytes(exr({"B": (gray, 1), "G": (gray, 1), "R": (gray, 1)}, primaries))
        np.testing.assert_allclose(read_radiance(tmp_path / "a.exr")[0], 0.5, atol=1e-5)


@pytest.mark.parametrize("primaries", [None, REC2020])
def test_luminance_and_chroma_of_an_exr_are_as_openimageio_reads_them(tmp_path, rng, primaries):
    pytest.importorskip("OpenEXR")
    light = colours(rng, (160, 240)) * 20
    red, green, blue = np.moveaxis(light, 2, 0)
    weights = [0.2627, 0.678, 0.0593] if primaries else [0.2126, 0.7152, 0.0722]
    y = light @ np.array(weights)
    planes = {name: ((plane / y - 1)[::2, ::2], 2) for name, plane in (("BY", blue), ("RY", red))}
    (tmp_path / "a.exr").write_bytes(exr(planes | {"Y": (y, 1)}, primaries))
    read = read_radiance(tmp_path / "a.exr")[0][..., ::-1]
    expected = light @ FROM_2020.T if primaries else light
    assert np.abs(read - expected)[4:-4, 4:-4].mean() < 5e-4 * y.max()
    oiio = pytest.importorskip("OpenImageIO")
    oiio.attribute("openexr:core", 0)  # its other way has no subsampled channels
    theirs = oiio.ImageInput.open(str(tmp_path / "a.exr")).read_image()
    theirs = theirs @ FROM_2020.T if primaries else theirs
    assert np.abs(read - theirs)[4:-4, 4:-4].mean() < 5e-4 * y.max()


def test_the_primaries_of_radiance_hdr_are_read(tmp_path, rng):
    light = colours(rng)
    wide = np.float32(light @ np.linalg.inv(FROM_2020).T)
    data = cv2.imencode(".hdr", np.ascontiguousarray(wide[..., ::-1]))[1].tobytes()
    noted = "\nPRIMARIES= " + " ".join(map(str, REC2020)) + "\nFORMAT"
    (tmp_path / "a.hdr").write_bytes(data.replace(b"\nFORMAT", noted.encode(), 1))
    assert np.abs(read_radiance(tmp_path / "a.hdr")[0][..., ::-1] - light).max() < 0.02


def test_float_tiff_is_read_by_its_profile_or_refused(tmp_path, rng):
    light = colours(rng)
    wide = np.float32(light @ np.linalg.inv(FROM_2020).T)
    data = cv2.imencode(".tif", np.ascontiguousarray(wide[..., ::-1]))[1].data
    for name, curve in (("linear", 1.0), ("curved", "sRGB")):
        pieces = add_to_tiff(data, Metadata(icc=profile(Encoding(REC2020, curve))), 60, 40)
        (tmp_path / f"{name}.tif").write_bytes(b"".join(pieces))
    image, metadata = read_radiance(tmp_path / "linear.tif")
    np.testing.assert_allclose(image, light[..., ::-1], atol=5e-4)
    assert metadata.icc is None
    with pytest.raises(ValueError, match="curved.tif: expected linear light"):
        read_radiance(tmp_path / "curved.tif")


def test_pq_and_hlg_are_the_published_curves():
    def light(number, curve):
        return float(to_light(np.full((1, 1), number, np.float32), Encoding(curve=curve))[0, 0])

    for number, nits in ((0.58069, 203), (0.50808, 100), (0.75183, 1000), (1, 10000), (0, 0)):  # BT.2408
        assert 203 * light(number, "PQ") == pytest.approx(nits, rel=1e-3, abs=1e-6)
    for number, scene in ((0.5, 1 / 12), (0.75, 0.26496), (1, 1), (0.25, 1 / 48)):
        assert light(number, "HLG") == pytest.approx(scene, rel=1e-3)
    values = np.geomspace(1e-3, 40, 50, dtype=np.float32)[None]
    np.testing.assert_allclose(to_light(to_pq(values), Encoding(curve="PQ")), values, rtol=2e-3)


@pytest.mark.parametrize("suffix", [".heic", ".avif", ".png"])
@pytest.mark.parametrize("curve", ["PQ", "HLG"])
def test_pictures_coded_as_pq_and_hlg_are_radiance_maps(tmp_path, rng, suffix, curve):
    light = colours(rng) * (4 if curve == "PQ" else 1)
    wide = np.maximum(light @ np.linalg.inv(FROM_2020).T, 0)
    if curve == "PQ":
        numbers = to_pq(wide)
    else:
        log = 0.17883277 * np.log(np.maximum(12 * wide - 0.28466892, 1e-9)) + 0.55991073
        numbers = np.where(wide < 1 / 12, np.sqrt(3 * wide), log)
    codes = {"primaries": 9, "transfer": 16 if curve == "PQ" else 18}
    path = tmp_path / f"a{suffix}"
    deep = np.rint(numbers * 65535).astype(np.uint16)
    if suffix == ".png":
        data = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
        path.write_bytes(with_chunks(data, {b"cICP": bytes([9, codes["transfer"], 0, 1])}))
    elif suffix == ".heic":
        heif = pytest.importorskip("pillow_heif")
        names = {"color_primaries": 9, "transfer_characteristics": codes["transfer"], "matrix_coefficients": 9}
        heif.encode("RGB;16", (60, 40), deep.tobytes(), path, quality=-1, chroma=444, full_range_flag=1, **names)
    else:
        codecs = pytest.importorskip("imagecodecs")
        ten = np.rint(numbers * 1023).astype(np.uint16)
        path.write_bytes(codecs.avif_encode(ten, 100, bitspersample=10, pixelformat="yuv444", matrix=9, **codes))
    read, metadata = read_radiance(path)
    assert metadata.radiance and metadata.icc is None
    assert np.median(np.abs(read[..., ::-1] / light - 1)) < 0.01
    assert np.percentile(np.abs(read[..., ::-1] / light - 1), 99) < 0.05
    with pytest.raises(ValueError, match=f"a{suffix}: .*fuse it alone"):
        read_photo(path)


def with_chunks(png, chunks):
    """A PNG's bytes with chunks {name: data} behind its header."""
    new = b""
    for name, data in chunks.items():
        new += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return png[:33] + new + png[33:]


def shown(numbers, icc):
    """What colour-managed software shows of R, G, B: sRGB uint8."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc)) if icc else ImageCms.createProfile("sRGB")
    target = ImageCms.createProfile("sRGB")
    return np.asarray(ImageCms.profileToProfile(Image.fromarray(numbers), source, target, 1), int)


def as_srgb(light):
    light = np.clip(light, 0, 1)
    return 255 * np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(
    "chunks, power, primaries",
    [
        ({b"gAMA": struct.pack(">I", 100_000)}, 1, REC709),
        ({b"gAMA": struct.pack(">I", 55_556)}, 1.8, REC709),
        ({b"gAMA": struct.pack(">I", 45_455)}, None, REC709),
        ({b"sRGB": b"\0", b"gAMA": struct.pack(">I", 100_000)}, None, REC709),
        ({b"gAMA": struct.pack(">I", 45_455), b"cHRM": ADOBE_CHUNK}, 2.2, ADOBE),
        ({b"cICP": bytes([12, 13, 0, 1])}, "sRGB", DISPLAY_P3),
    ],
)  # fmt: skip
def test_what_a_png_notes_of_its_colours_becomes_its_profile(tmp_path, rng, chunks, power, primaries):
    numbers = np.rint(colours(rng) * 255).astype(np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(with_chunks(cv2.imencode(".png", numbers[..., ::-1])[1].tobytes(), chunks))
    image, metadata = read_photo(path)
    np.testing.assert_array_equal(image[..., ::-1], numbers)  # whatever a decoder would make of gAMA
    if power is None:
        assert metadata.icc is None
        return
    value = numbers / 255
    light = (
        np.where(value < 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) if power == "sRGB" else value**power
    )
    corners = np.reshape(primaries[:6], (3, 2))
    columns = np.column_stack([corners, 1 - corners.sum(1)]).T
    own = columns * np.linalg.solve(columns, TO_XYZ.sum(1))  # the same white as Rec. 709
    expected = as_srgb(light @ (np.linalg.inv(TO_XYZ) @ own).T)
    assert np.abs(shown(numbers, metadata.icc) - expected).max() <= 1.5
    write_image(tmp_path / "b.tif", image, metadata)
    assert read_metadata(tmp_path / "b.tif").icc == metadata.icc


@pytest.mark.parametrize("suffix", [".heic", ".avif"])
def test_wide_colours_without_a_profile_get_one(tmp_path, rng, suffix):
    numbers = np.rint(colours(rng) * 255).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    if suffix == ".heic":
        heif = pytest.importorskip("pillow_heif")
        names = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 6}
        heif.encode("RGB", (60, 40), numbers.tobytes(), path, quality=95, chroma=444, full_range_flag=1, **names)
    else:
        codecs = pytest.importorskip("imagecodecs")
        path.write_bytes(codecs.avif_encode(numbers, 95, pixelformat="yuv444", primaries=12, transfer=13, matrix=6))
    image, metadata = read_photo(path)
    assert np.abs(image[..., ::-1].astype(int) - numbers).mean() < 2
    assert same_colours(metadata.icc, profile(Encoding(DISPLAY_P3))) and not same_colours(metadata.icc, None)


def test_colours_that_are_not_known_are_refused(tmp_path, rng):
    data = cv2.imencode(".png", np.zeros((4, 5, 3), np.uint8))[1].tobytes()
    for chunk, said in ((bytes([3, 13, 0, 1]), "H.273: 3, 13"), (bytes([1, 13, 1, 1]), "by its cICP chunk")):
        (tmp_path / "a.png").write_bytes(with_chunks(data, {b"cICP": chunk}))
        with pytest.raises(ValueError, match=f"a.png: .*{said}"):
            read_photo(tmp_path / "a.png")


@pytest.mark.parametrize(
    "own, other, kept",
    [(None, SRGB, SRGB), (None, "wide", None), ("wide", SRGB, "wide"), ("wide", None, "wide"), (SRGB, None, SRGB)],
)
def test_metadata_of_another_file_never_relabels_the_colours(tmp_path, stack, own, other, kept):
    wide = profile(Encoding(ADOBE, 2.2))
    own, other, kept = (wide if icc == "wide" else icc for icc in (own, other, kept))
    for name, shot in zip("ab", stack(), strict=True):
        Image.fromarray(shot).save(tmp_path / f"{name}.png", icc_profile=own)
    Image.new("RGB", (4, 4)).save(tmp_path / "c.jpg", icc_profile=other)
    arguments = [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out.png", tmp_path / "c.jpg"
    if same_colours(own, other):
        assert read_exposures(*arguments)[1].icc == kept
        return
    with pytest.warns(UserWarning, match="c.jpg: its colour profile is not that of the exposures"):
        assert read_exposures(*arguments)[1].icc == kept
