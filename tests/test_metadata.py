"""utils/pictures/metadata.py: what the headers of all formats say, against the files' makers."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.test_camera import dng
from tests.test_hostile import chunk, plain_tiff, png
from tests.test_image import SRGB, camera_exif
from utils.pictures.image import read_photo
from utils.pictures.light import REC2020, Encoding
from utils.pictures.metadata import _chunks, _png_encoding, read_metadata

WIDE, TALL = 700, 300


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def rgb(mode="RGB"):
    return Image.effect_noise((WIDE, TALL), 50).convert(mode)


def array(dtype, *channels):
    return np.zeros((TALL, WIDE, *channels), dtype)


FILES = {  # name -> bytes, format, bits of a TIFF's sample, most bytes that a decoder takes per pixel
    "a.jpg": (saved(rgb(), "JPEG"), "JPEG", 8, 3),
    "gray.jpg": (saved(rgb("L"), "JPEG"), "JPEG", 8, 3),
    "two.jpg": (saved(rgb(), "MPO", save_all=True, append_images=[rgb()]), "MPO", 8, 3),
    "a.bmp": (saved(rgb(), "BMP"), "BMP", 8, 4),
    "a.png": (saved(rgb(), "PNG"), "PNG", 8, 4),
    "gray.png": (saved(rgb("L"), "PNG"), "PNG", 8, 1),
    "bits.png": (saved(rgb("1"), "PNG"), "PNG", 8, 1),
    "alpha.png": (saved(rgb("RGBA"), "PNG"), "PNG", 8, 4),
    "deep.png": (png(WIDE, TALL, 16), "PNG", 8, 8),
    "a.webp": (saved(rgb(), "WEBP"), "WEBP", 8, 4),
    "lossless.webp": (saved(rgb(), "WEBP", lossless=True, method=0), "WEBP", 8, 4),
    "extended.webp": (saved(rgb(), "WEBP", exif=camera_exif().tobytes(), icc_profile=SRGB), "WEBP", 8, 4),
    "a.tif": (plain_tiff(array(np.uint8, 3)), "TIFF", 8, 3),
    "gray.tif": (plain_tiff(array(np.uint8)), "TIFF", 8, 3),
    "deep.tif": (plain_tiff(array(np.uint16, 3)), "TIFF", 16, 6),
    "float.tif": (plain_tiff(array(np.float32, 3)), "TIFF", 32, 12),
    "double.tif": (plain_tiff(array(np.float64)), "TIFF", 64, 8),
    "a.hdr": (cv2.imencode(".hdr", array(np.float32, 3))[1].tobytes(), "HDR", 32, 12),
}


@pytest.mark.parametrize("name", FILES)
def test_size_and_depth_are_those_of_the_pixels(tmp_path, name):
    data, kind, bits, depth = FILES[name]
    (tmp_path / name).write_bytes(data)
    metadata = read_metadata(tmp_path / name)
    assert (metadata.size, metadata.format) == ((WIDE, TALL), kind)
    assert (metadata.bits, metadata.depth) == (bits, depth)
    assert metadata.radiance == (kind == "HDR" or bits > 16) and metadata.orientation == 1
    if not metadata.radiance:
        image, _ = read_photo(tmp_path / name)
        assert image.shape[:2] == (TALL, WIDE) and image.itemsize * max(image.shape[2:], default=1) <= depth


def test_of_tiled_and_high_exrs_as_much_is_decoded_as_they_say(tmp_path):
    exr = pytest.importorskip("OpenEXR")
    for names, height, depth in (("RGB", 20, 36), ("RGBA", 20, 40), ("RGB", 512, 30), ("RGB", 1, 36)):
        planes = {name: np.zeros((height, 30), np.float16) for name in names}
        exr.File({"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}, planes).write(f"{tmp_path}/a.exr")
        metadata = read_metadata(tmp_path / "a.exr")
        assert (metadata.size, metadata.bits, metadata.depth) == ((30, height), 32, depth)
        assert metadata.radiance and metadata.encoding.curve == 1


def test_camera_raw_is_what_the_camera_says(tmp_path, rng):
    pytest.importorskip("rawpy")
    for orientation in (1, 3, 6, 8):
        (tmp_path / "a.dng").write_bytes(dng(rng.random((64, 96, 3)), orientation=orientation))
        metadata = read_metadata(tmp_path / "a.dng")
        assert (metadata.size, metadata.format, metadata.bits, metadata.depth) == ((96, 64), "RAW", 16, 6)
        assert metadata.orientation == {1: 1, 3: 3, 6: 6, 8: 8}[orientation]
        assert metadata.white[:3] == pytest.approx((2, 1, 1.5), rel=0.01) and not metadata.radiance


def test_chunks_are_found_behind_others_of_any_length():
    for length in range(4):
        before = b"JUNK" + struct.pack("<I", length) + bytes(length + length % 2)
        body = before + b"EXIF" + struct.pack("<I", 5) + b"12345\0" + b"EXIF" + struct.pack("<I", 2) + b"no"
        found = _chunks(io.BytesIO(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body), 12, {b"EXIF": 3})
        assert found == {b"EXIF": b"123"}  # the first of its name, up to the wanted length
        data = png(8, 8, before=chunk(b"junk", bytes(length)) + chunk(b"eXIf", b"12345"))
        assert _chunks(io.BytesIO(data), 8, {b"eXIf": 9, b"IEND": 9}) == {b"eXIf": b"12345", b"IEND": b""}
        assert not _chunks(io.BytesIO(data + chunk(b"last", b"x")), 8, {b"last": 9})  # nothing counts behind the end
    for cut in (5, 13):
        with pytest.raises(ValueError, match="cut short"):
            _chunks(io.BytesIO(data[: -cut - 12]), 8, {})


def test_colours_of_a_png_are_those_of_its_first_chunk_that_says():
    white_first = [31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000]
    gamma, primaries = struct.pack(">I", 45455), struct.pack(">8I", *white_first)
    known = {b"gAMA": gamma, b"cHRM": primaries}
    found = _png_encoding(known)
    assert found.curve == pytest.approx(2.2, abs=1e-4)
    np.testing.assert_allclose(found.primaries, (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329))
    assert _png_encoding({b"gAMA": struct.pack(">I", 100000)}) == Encoding(curve=1.0)
    assert _png_encoding({}) is None and _png_encoding({b"cHRM": primaries}) is None
    assert _png_encoding(known | {b"sRGB": b"\0"}) is None
    assert _png_encoding(known | {b"sRGB": b"\0", b"cICP": bytes([9, 16, 0, 1])}) == Encoding(REC2020, "PQ")
    for codes in ([9, 16, 1, 1], [9, 16, 0, 0]):
        with pytest.raises(ValueError, match="R, G, B in the full range"):
            _png_encoding({b"cICP": bytes(codes)})


def test_a_webp_keeps_exif_behind_a_profile_of_odd_length(tmp_path):
    profile = SRGB + bytes(1 - len(SRGB) % 2)
    (tmp_path / "a.webp").write_bytes(saved(rgb(), "WEBP", exif=camera_exif(6).tobytes(), icc_profile=profile))
    metadata = read_metadata(tmp_path / "a.webp")
    assert metadata.icc == profile and metadata.exposure_time == pytest.approx(1 / 125) and metadata.orientation == 6
