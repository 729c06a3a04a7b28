"""Files made to do harm: nothing hangs, nothing is silently wrong, nothing takes more memory than it says."""

import io
import itertools
import json
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.test_camera import ifd
from tests.test_image import SRGB
from utils.errors import UserError
from utils.fusing.fusion import read_exposures
from utils.pictures.image import read_photo, read_radiance, write_image
from utils.pictures.metadata import Directory, Metadata, read_metadata

ROOT = Path(__file__).parents[1]
SHORT, LONG, RATIONAL, DOUBLE = 3, 4, 5, 12  # types of TIFF


def chunk(name, data, length=None):
    return (
        struct.pack(">I", len(data) if length is None else length)
        + name
        + data
        + struct.pack(">I", zlib.crc32(name + data))
    )


def png(width, height, bits=8, kind=2, before=b"", pixels=None):
    """A PNG's bytes: `before` stands before the pixels, which are black."""
    if pixels is None:
        row = 1 + width * {0: 1, 2: 3, 6: 4}[kind] * bits // 8
        packer = zlib.compressobj(9)
        pixels = b"".join([*(packer.compress(bytes(row * 64)) for _ in range(height // 64)),
                           packer.compress(bytes(row * (height % 64))), packer.flush()])  # fmt: skip
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def plain_tiff(pixels, tags=None):
    """An uncompressed TIFF's bytes of (H, W) or (H, W, C); `tags` {tag: (type, values)} replace its own."""
    channels, bits, data = pixels.shape[2] if pixels.ndim == 3 else 1, pixels.dtype.itemsize * 8, pixels.tobytes()
    main = {256: (LONG, (pixels.shape[1],)), 257: (LONG, (pixels.shape[0],)), 258: (SHORT, (bits,) * channels)}
    main |= {259: (SHORT, (1,)), 262: (SHORT, (2 if channels > 2 else 1,)), 277: (SHORT, (channels,))}
    main |= {278: (LONG, (pixels.shape[0],)), 279: (LONG, (len(data),)), 273: (LONG, (0,))}
    main |= {339: (SHORT, ({"f": 3, "i": 2, "u": 1}[pixels.dtype.kind],) * channels)} | (tags or {})
    main[273] = (LONG, (8 + len(ifd(main, 8)),))
    return b"II*\0" + struct.pack("<I", 8) + ifd(main, 8) + data


def big_tiff(pixels, order):
    """A BigTIFF's bytes of (H, W) uint8 in this byte order."""
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 16 + 8 + 20 * 9 + 8, 277: 1, 278: height}
    tags[279] = pixels.size
    entries = b"".join(struct.pack(order + "HHQQ", tag, 16, 1, value) for tag, value in sorted(tags.items()))
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HHHQ", 43, 8, 0, 16)
    return head + struct.pack(order + "Q", len(tags)) + entries + bytes(8) + pixels.tobytes()


def exr(folder, shape, names="RGB", end=0):
    """An OpenEXR's bytes of black pixels, all but the first 1000 of them after the last `end` bytes are zero."""
    openexr = pytest.importorskip("OpenEXR", reason="needs OpenEXR")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    rng = np.random.default_rng(0)
    planes = {name: (rng.random(shape) if end else np.zeros(shape)).astype(np.float16) for name in names}
    openexr.File(header, planes).write(str(folder / "made.exr"))
    data = (folder / "made.exr").read_bytes()
    return data[: len(data) - end] + bytes(end)


def fax(size=(2000, 4000)):
    """A Group 3 TIFF's bytes whose lines are all bad."""
    file = io.BytesIO()
    Image.effect_noise((size[0], size[1]), 99).convert("1").save(file, "TIFF", compression="group3")
    data = bytearray(file.getvalue())
    with Image.open(io.BytesIO(bytes(data))) as picture:
        (start, *_), (length, *_) = picture.tag_v2[273], picture.tag_v2[279]
    data[start : start + length] = np.random.default_rng(0).integers(0, 256, length, np.uint8).tobytes()
    return bytes(data)


READ = """
import json, sys, time, warnings
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from utils.errors import UserError
from utils.fusing.fusion import read_exposures
from utils.pictures.image import read_photo, read_radiance
from utils.pictures.metadata import read_metadata
warnings.simplefilter("ignore")

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e6  # GB

for path in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    try:
        said = str((read_radiance if read_metadata(path).radiance else read_photo)(path)[0].shape)
    except UserError as error:
        said = str(error)
    print(json.dumps([path, said, time.perf_counter() - start, peak()]), flush=True)
"""


def read_elsewhere(folder, files, **options):
    """Returns {name: (what reading said, seconds, peak memory in GB)}, read in a process that may take 60 s."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    command = [sys.executable, "-c", READ, ROOT, *(folder / name for name in files)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, **options)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(path).name: rest for path, *rest in rows}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux: the peak of memory")
def test_decoders_that_complain_much_do_not_hang(tmp_path):
    chatty = png(32, 24, before=b"".join(chunk(b"gAMA", struct.pack(">I", 45455 + k)) for k in range(5000)))
    files = {"tail.exr": exr(tmp_path, (2000, 1500), end=9_000_000), "gamma.png": chatty, "fax.tif": fax()}
    found = read_elsewhere(tmp_path, files)
    assert found["gamma.png"][0] == "(24, 32, 3)"
    for name in ("tail.exr", "fax.tif"):
        said, seconds, memory = found[name]
        assert "damaged" in said and str(tmp_path / name) in said and "\n" not in said
    assert max(seconds for _, seconds, _ in found.values()) < 10


def test_pictures_are_read_where_stderr_is_closed(tmp_path):
    pytest.importorskip("resource")
    files = {"a.png": png(32, 24), "b.jpg": cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()}
    found = read_elsewhere(tmp_path, files, preexec_fn=lambda: os.close(2))
    assert [said for said, *_ in found.values()] == ["(24, 32, 3)"] * 2


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux: the peak of memory")
def test_a_small_file_never_takes_a_gigabyte(tmp_path):
    lie = struct.pack(">I", 2**31 - 9) + b"IDAT" + bytes(20)
    early = png(32, 24)[:33] + chunk(b"IEND", b"") + lie  # OpenCV reads on behind an early end
    gray = Image.new("L", (1, 1))
    file = io.BytesIO()
    gray.save(file, "TIFF", compression="tiff_lzw")
    layers = [f"layer{k}.R" for k in range(200)]
    files = {
        "early.png": early,
        "deep.png": png(9000, 9000, 16, 6),
        "flat.exr": exr(tmp_path, (8000, 8000)),
        "layers.exr": exr(tmp_path, (600, 600), [*"RGB", *layers]),
        "tile.tif": plain_tiff(np.zeros((8, 8), np.uint8), {322: (LONG, (60_000,)), 323: (LONG, (60_000,))}),
    }
    assert max(map(len, files.values())) < 1e6
    found = read_elsewhere(tmp_path, files)
    assert len(found) == len(files) and found["layers.exr"][0] == "(600, 600, 3)"
    assert max(memory for *_, memory in found.values()) < 0.6, found
    assert "expected at most" in found["deep.png"][0] and "expected at most" in found["flat.exr"][0]


def refused(path, match, data, read=read_photo):
    path.write_bytes(data)
    with pytest.raises(UserError, match=match) as raised:
        read(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("what", "dtype", "tags"),
    [
        ("planar 32-bit", np.float32, {284: (SHORT, (2,))}),
        ("32-bit inverted", np.float32, {262: (SHORT, (0,))}),
        ("32-bit CMYK", np.float32, {262: (SHORT, (5,))}),
        ("16-bit float", np.float16, {}),
        ("planar 16-bit", np.uint16, {284: (SHORT, (2,))}),
        ("16-bit inverted", np.uint16, {262: (SHORT, (0,))}),
        ("16-bit YCbCr", np.uint16, {262: (SHORT, (6,))}),
        ("10-bit", np.uint16, {258: (SHORT, (10, 10, 10))}),
        ("14-bit", np.uint16, {258: (SHORT, (14, 14, 14))}),
        ("5 and 6-bit", np.uint8, {258: (SHORT, (5, 6, 5))}),
        ("signed or complex", np.int16, {}),
        ("32-bit", np.uint32, {}),
    ],
)
def test_layouts_that_are_not_read_are_unsupported_and_not_damaged(tmp_path, what, dtype, tags):
    data = plain_tiff(np.ones((8, 8, 3), dtype), tags)
    refused(tmp_path / "a.tif", f"a.tif: {what} TIFFs cannot be fused: convert it to RGB or gray", data)


def test_big_tiffs_are_read_or_unsupported(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    (tmp_path / "a.tif").write_bytes(big_tiff(pixels, "<"))
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif")[0], pixels)
    refused(tmp_path / "b.tif", "b.tif: a BigTIFF of big-endian .* save it as an ordinary TIFF", big_tiff(pixels, ">"))


def test_numbers_that_no_camera_notes_are_no_error(tmp_path):
    for number, known in ((1e200, True), (1e-200, True), (0.0, False), (-1.0, False), (float("inf"), False)):
        shot = Directory(group=34665)
        for tag, value in {33434: 0.01, 33437: number, 34855: 100.0}.items():
            shot.tagtype[tag], shot[tag] = DOUBLE, value
        assert (Metadata(exif={0: Directory(), 34665: shot}).stops is not None) == known
    shot[33437] = 2.0
    assert Metadata(exif={0: Directory(), 34665: shot}).stops == pytest.approx(np.log2(0.01 * 100 / 2**2))


def test_tags_of_another_type_are_one_line(tmp_path):
    floats = np.ones((8, 8), np.float32)
    refused(tmp_path / "a.tif", "damaged, or not a picture", plain_tiff(floats, {256: (2, b"8")}))
    for tag, kind in itertools.product((256, 257, 258, 262, 277, 284, 322, 339), (2, RATIONAL)):
        value = b"8" if kind == 2 else (8, 1)
        for pixels in (floats, np.ones((8, 8), np.uint8), np.ones((8, 8, 3), np.uint16)):
            path = tmp_path / f"{tag}_{kind}.tif"
            path.write_bytes(plain_tiff(pixels, {tag: (kind, value)}))
            try:
                read_metadata(path)
            except UserError as error:
                assert str(path) in str(error)


def test_light_beyond_float32_is_the_brightest(tmp_path):
    light = np.ones((8, 8, 3))
    light[0, 0] = 1e300
    (tmp_path / "a.tif").write_bytes(plain_tiff(light))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read, _ = read_radiance(tmp_path / "a.tif")
    assert read.dtype == np.float32 and read[1, 1, 0] == 1 and np.isinf(read[0, 0, 0])


@pytest.mark.parametrize("unit", [0, 4, 7, 65535])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_written_can_be_read_again(tmp_path, unit, dtype):
    exif = Image.Exif()
    exif[271], exif[282], exif[296] = "Acme", 72.0, unit
    Image.new("RGB", (32, 24)).save(tmp_path / "a.jpg", exif=exif.tobytes())
    with warnings.catch_warnings(record=True) as said:
        _, metadata = read_photo(tmp_path / "a.jpg")
    assert "ResolutionUnit" in str(said[0].message)
    write_image(tmp_path / "a.tif", np.zeros((24, 32, 3), dtype), metadata)
    _, again = read_photo(tmp_path / "a.tif")
    assert again.exif[0][271] == "Acme"


def test_a_profile_that_bmp_cannot_hold_is_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="a.bmp: .*colour profile .*left out"):
        write_image(tmp_path / "a.bmp", np.zeros((8, 8, 3), np.uint8), Metadata(icc=SRGB))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux: the peak of memory")
def test_channels_without_a_name_do_not_end_the_program(tmp_path):
    data = exr(tmp_path, (64, 96))
    place = data.index(b"B\0\x01")
    found = read_elsewhere(tmp_path, {"a.exr": data[:place] + b"\xe7" + data[place + 1 :], "b.exr": data})
    assert "a.exr: damaged" in found["a.exr"][0] and found["b.exr"][0] == "(64, 96, 3)"


def test_a_jpeg_with_odd_scan_parameters_is_read(tmp_path, capfd):
    data = bytearray(cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes())
    data[data.index(b"\xff\xda") + 11] = 1  # where spectral selection begins: of no meaning in a sequential JPEG
    (tmp_path / "a.jpg").write_bytes(data)
    assert read_photo(tmp_path / "a.jpg")[0].shape == (24, 32, 3) and capfd.readouterr().err == ""


def test_a_black_map_is_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(plain_tiff(np.zeros((8, 8, 3), np.float32)))
    with pytest.raises(UserError, match="a.tif: the radiance map is black all over"):
        read_exposures([tmp_path / "a.tif"], tmp_path / "b.tif")
