"""utils/pictures/metadata.py: what the headers of all formats say, against the files' makers."""

import io
import struct
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.test_camera import dng, ifd
from tests.test_hostile import chunk, plain_tiff, png
from tests.test_image import SRGB, camera_exif, noted
from utils.errors import UserError
from utils.pictures.image import read_photo, write_image
from utils.pictures.light import REC2020, Encoding
from utils.pictures.metadata import (
    _chunks,
    _format,
    _layout,
    _png_encoding,
    _read_raw,
    _read_webp,
    named_errors,
    read_metadata,
)

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
    "deep_gray.png": (png(WIDE, TALL, 16, 0), "PNG", 8, 8),
    "palette.png": (saved(rgb().quantize(9), "PNG"), "PNG", 8, 4),
    "a.webp": (saved(rgb(), "WEBP"), "WEBP", 8, 4),
    "lossless.webp": (saved(rgb(), "WEBP", lossless=True, method=0), "WEBP", 8, 4),
    "extended.webp": (saved(rgb(), "WEBP", exif=camera_exif().tobytes(), icc_profile=SRGB), "WEBP", 8, 4),
    "a.tif": (plain_tiff(array(np.uint8, 3)), "TIFF", 8, 3),
    "gray.tif": (plain_tiff(array(np.uint8)), "TIFF", 8, 3),
    "deep.tif": (plain_tiff(array(np.uint16, 3)), "TIFF", 16, 6),
    "deep_gray.tif": (plain_tiff(array(np.uint16)), "TIFF", 16, 3),
    "alpha.tif": (plain_tiff(array(np.uint16, 4)), "TIFF", 16, 8),
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


RGB = {256: 300, 257: 200, 258: (8, 8, 8), 262: 2, 277: 3}  # tags of a TIFF, by TIFF 6.0


@pytest.mark.parametrize(
    "tags, found",
    [
        *(({258: bits}, (bits, False)) for bits in (1, 2, 4, 8, 16)),
        *(({258: (bits,) * 3, 339: (3, 3, 3)}, (bits, True)) for bits in (32, 64)),
        ({258: (16,) * 3, 339: (4, 4, 4)}, (16, False)),  # 4: undefined
        *(({262: kind}, (8, False)) for kind in (0, 1, 3, 5, 6, 8)),  # of 8 bits Pillow knows all
        *(({258: 16, 262: kind}, (16, False)) for kind in (1, 2)),
        ({284: 2}, (8, False)),  # planar
        ({258: 16, 277: 1, 284: 2}, (16, False)),
        ({258: (16,) * 3, 284: 1}, (16, False)),
        ({322: 2048, 323: 2048}, (8, False)),  # of the largest tile: four million pixels, or as many as the picture
        ({256: 2049, 257: 2048, 322: 2049, 323: 2048}, (8, False)),
    ],
)
def test_layouts_of_tiff_that_are_read(tags, found):
    assert _layout(RGB | tags) == found


@pytest.mark.parametrize(
    "tags, said",
    [
        *(({258: bits}, f"{bits}-bit TIFFs") for bits in (3, 9, 10, 12, 24, 32, 64)),
        *(({258: bits, 339: 3}, f"{bits}-bit float TIFFs") for bits in (8, 16, 24, 33)),
        *(({339: kind}, "signed or complex TIFFs") for kind in (2, 5, 6, (1, 3), (3, 4), (2, 3))),
        *(({258: 16, 262: kind}, "16-bit LAB TIFFs") for kind in (8, 9, 10)),
        *(({258: 16, 262: kind}, "16-bit other TIFFs") for kind in (3, 4, 32803)),
        ({258: (8, 16, 8)}, "8 and 16-bit TIFFs"),
        ({258: 16, 284: 2, 277: 2}, "planar 16-bit TIFFs"),
        ({322: 2049, 323: 2048}, "its tiles are larger than the picture"),
        ({322: 2048, 323: 2049}, "its tiles are larger than the picture"),
        ({256: 3000, 257: 2000, 322: 3000, 323: 2001}, "its tiles are larger than the picture"),
    ],
)
def test_layouts_of_tiff_that_are_not_read(tags, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        _layout(RGB | tags)


def test_what_a_tiff_does_not_note_is_as_its_specification_says():
    """One sample of one bit, of whole numbers, not planar, black is 0."""
    size = {256: 300, 257: 200}
    assert _layout(size) == (1, False) and _layout(size | {258: 16}) == _layout(size | {258: 16, 284: 2}) == (16, False)
    assert _layout(size | {322: 2**22}) == _layout(size | {323: 2**22}) == (1, False)


def test_kinds_of_files_are_known_by_their_first_bytes_and_raw_by_its_suffix():
    for head, kind in (
        (b"RIFF....WEBP", "WEBP"),
        (b"v/1\x01..", "EXR"),
        (b"#?RADIANCE", "HDR"),
        (b"\xff\xd8\xff\xe0", ""),
        (b"\0\0\0\x14ftypheic\0\0\0\0mif1avif", "HEIF"),  # the list of brands ends at 20 bytes
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", ""),
        (b"\0\0\0\x14ftypavis\0\0\0\0mif1heic", ""),
        (b"....ftyp", "HEIF"),
        (b"ftypheic", ""),
    ):
        assert _format(Path("a.jpg"), head) == kind and _format(Path("a.NEF"), head) == "RAW"


def riff(**parts):
    chunks = b"".join(name.encode().ljust(4) + struct.pack("<I", len(data)) + data for name, data in parts.items())
    return io.BytesIO(b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks)


@pytest.mark.parametrize("width, height", [(1, 1), (16383, 1), (1, 16383), (16000, 9000), (258, 513)])
def test_sizes_of_webp_are_those_of_its_container(width, height):
    """As its specification packs them: less 1 in 24 bits each; in 14 bits each; less 1 in 28 bits together."""
    extended = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    lossy = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width | 1 << 14, height | 3 << 14)  # the rest: how to scale
    lossless = b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14 | 1 << 28)  # the rest: alpha, version
    assert all(_read_webp(riff(**part)).size == (width, height) for part in ({"VP8X": extended}, {"VP8": lossy}))
    assert _read_webp(riff(VP8L=lossless)).size == (width, height)
    assert _read_webp(riff(VP8X=extended, VP8=lossy, EXIF=b"Exif\0\0II*\0")).exif.read() == b"II*\0"
    huge = bytes(4) + (2**24 - 1).to_bytes(3, "little") * 2  # of an animation
    assert _read_webp(riff(VP8X=huge, VP8L=lossless)).size == (2**24, 2**24)


@pytest.mark.parametrize("white, known", [((2, 1, 1.5, 0), True), ((0, 1, 1, 0), False), ((2, 1, 0, 1), False)])
@pytest.mark.parametrize("flip, orientation", [(0, 1), (3, 3), (5, 8), (6, 6)])
@pytest.mark.parametrize("start", [b"II*\0", b"MM\0*", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJI"])
def test_camera_raw_by_a_stand_in(monkeypatch, tmp_path, white, known, flip, orientation, start):
    """EXIF is the file itself where it is a TIFF, also of another name; otherwise that of its preview."""
    thumb = types.SimpleNamespace(data=noted({33434: 0.5}))
    sizes = types.SimpleNamespace(width=96, height=64, flip=flip)
    raw = types.SimpleNamespace(sizes=sizes, camera_whitebalance=white, extract_thumb=lambda: thumb)

    class Opened:
        def __enter__(self):
            return raw

        def __exit__(self, *_):
            return None

    stand_in = types.SimpleNamespace(imread=lambda name: Opened(), LibRawError=RuntimeError)
    monkeypatch.setitem(sys.modules, "rawpy", stand_in)
    (tmp_path / "a.orf").write_bytes(start + b"the rest")
    with open(tmp_path / "a.orf", "rb") as file:
        header = _read_raw(file)
    exif = header.exif.read()
    assert exif[:2] == b"MM" if start == b"FUJI" else exif == {73: b"II*\0", 77: b"MM\0*"}[start[0]] + b"the rest"
    assert (header.size, header.bits, header.depth, header.orientation) == ((96, 64), 16, 6, orientation)
    assert header.white == (white if known else None)


def test_long_reasons_are_cut(tmp_path):
    with pytest.raises(UserError) as raised, named_errors("a.jpg"):
        raise OSError("x" * 159 + "yz")
    assert str(raised.value) == f"a.jpg: damaged, or not a picture ({'x' * 159}y)"


def test_what_is_written_says_its_own_size_and_nothing_of_the_old_file(tmp_path):
    """By Pillow: also behind the several strips of a large TIFF."""
    kept = {33434: 0.5, 40962: 7, 40963: 9, 37500: b"maker", 41989: 35}
    (tmp_path / "a.jpg").write_bytes(noted(kept | {40965: 60}, {271: "Acme", 274: 6, 282: 72.0, 296: 3}))
    metadata = read_metadata(tmp_path / "a.jpg")
    image = np.random.default_rng(0).integers(0, 65536, (300, 400, 3), np.uint16)
    for suffix in (".tif", ".png", ".jpg", ".webp"):
        write_image(tmp_path / f"b{suffix}", image, metadata)
        with Image.open(tmp_path / f"b{suffix}") as picture:
            main = picture.getexif()
            exif = main.get_ifd(ExifTags.IFD.Exif)
        assert (main[271], main[274], main[282], main[296]) == ("Acme", 1, 72, 3)
        assert dict(exif) == kept | {40962: 400, 40963: 300}
        if suffix == ".tif":
            assert len(Image.open(tmp_path / "b.tif").tag_v2[273]) > 1
            np.testing.assert_array_equal(read_photo(tmp_path / "b.tif")[0], image)


def test_only_avif_with_hdr_needs_a_package_of_its_own(tmp_path, monkeypatch):
    codecs = pytest.importorskip("imagecodecs")
    deep = np.zeros((TALL, WIDE, 3), np.uint16)
    hdr = {"bitspersample": 10, "pixelformat": "yuv444", "primaries": 9, "transfer": 16, "matrix": 9}
    files = {"a.avif": saved(rgb(), "AVIF"), "a.hdr": FILES["a.hdr"][0], "b.avif": codecs.avif_encode(deep, 90, **hdr)}
    monkeypatch.setitem(sys.modules, "imagecodecs", None)  # as if not installed
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert not read_metadata(tmp_path / "a.avif").radiance and read_metadata(tmp_path / "a.hdr").radiance
    with pytest.raises(UserError, match="b.avif: HDR AVIF needs the package imagecodecs"):
        read_metadata(tmp_path / "b.avif")


@pytest.mark.parametrize("start", [8, 43, 43 << 8])  # 43 is also the number of BigTIFF
def test_the_directory_of_exif_may_stand_anywhere(tmp_path, start):
    block = b"II*\0" + struct.pack("<I", start) + bytes(start - 8) + ifd({271: (2, b"Acme")}, start)
    (tmp_path / "a.jpg").write_bytes(saved(rgb(), "JPEG", exif=b"Exif\0\0" + block))
    assert read_metadata(tmp_path / "a.jpg").exif[0][271] == "Acme"


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


def test_of_chunks_that_are_too_long_the_beginning_counts(tmp_path):
    white_first = struct.pack(">8I", 31270, 32900, 21000, 71000, 15000, 6000, 64000, 33000)
    more = chunk(b"gAMA", struct.pack(">I", 45455) + b"more") + chunk(b"cHRM", white_first + b"more")
    (tmp_path / "a.png").write_bytes(png(8, 8, before=more))
    assert read_metadata(tmp_path / "a.png").icc


def test_the_notes_of_radiance_hdr_may_have_64_kilobytes(tmp_path):
    for length, fine in ((65_400, True), (65_700, False)):
        (tmp_path / "a.hdr").write_bytes(b"#?RADIANCE\n# " + bytes(length) + b"\nFORMAT=32-bit_rle_rgbe\n\n-Y 3 +X 4\n")
        if fine:
            assert read_metadata(tmp_path / "a.hdr").size == (4, 3)
            continue
        with pytest.raises(UserError, match=r"expected the size as -Y HEIGHT \+X WIDTH"):
            read_metadata(tmp_path / "a.hdr")


def test_a_webp_keeps_exif_behind_a_profile_of_odd_length(tmp_path):
    profile = SRGB + bytes(1 - len(SRGB) % 2)
    (tmp_path / "a.webp").write_bytes(saved(rgb(), "WEBP", exif=camera_exif(6).tobytes(), icc_profile=profile))
    metadata = read_metadata(tmp_path / "a.webp")
    assert metadata.icc == profile and metadata.exposure_time == pytest.approx(1 / 125) and metadata.orientation == 6
