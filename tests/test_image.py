"""utils/pictures/image.py and utils/pictures/metadata.py: formats, colour, metadata, refusals."""

import io
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffTags

from utils.pictures.image import list_images, read_image, read_photo, write_image
from utils.pictures.metadata import read_metadata
from utils.pictures.pixels import from_float, luma, to_float, upright

RNG = np.random.default_rng(0)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(shape=(24, 32, 3), dtype=np.uint8):
    return cv2.resize(RNG.integers(0, np.iinfo(dtype).max, (6, 8, *shape[2:]), dtype), shape[1::-1])


def camera_exif(orientation=1):
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Acme", orientation
    exif[ExifTags.Base.Artist] = "Zoë".encode()  # UTF-8, as cameras write it
    shot = exif.get_ifd(ExifTags.IFD.Exif)
    shot[ExifTags.Base.ExposureTime], shot[ExifTags.Base.DateTimeOriginal] = 1 / 125, "2024:05:06 07:08:09"
    shot[ExifTags.Base.SubsecTimeOriginal] = "25"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (3,), (4,)], ids=["gray", "colour", "alpha"])
def test_lossless_formats_return_what_was_written(tmp_path, suffix, dtype, channels):
    image = picture((24, 32, *channels), dtype)
    path = tmp_path / f"曝光 é{suffix}"
    write_image(path, image)
    again, _ = read_photo(path)
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, image)
    assert read_image(path).shape == (24, 32, 3) and read_image(path).dtype == dtype
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file is left


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_come_close_and_round_16_bits(tmp_path, suffix):
    image = picture()
    write_image(tmp_path / f"8{suffix}", image)
    write_image(tmp_path / f"16{suffix}", image.astype(np.uint16) * 257)
    a, b = (read_image(tmp_path / f"{bits}{suffix}").astype(int) for bits in (8, 16))
    assert np.abs(a - image).mean() < 8  # of a picture whose colours change every few pixels
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_orientation_is_applied_as_pillow_does(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(picture()).save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))[..., ::-1]
    np.testing.assert_array_equal(read_photo(path)[0], expected)
    np.testing.assert_array_equal(read_image(path), expected)
    if suffix != ".tif":  # Pillow turns a TIFF by itself and forgets about it
        assert read_photo(path)[1].orientation == orientation


def test_orientations_have_their_inverses():
    image = picture()
    for orientation, inverse in {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.items():
        np.testing.assert_array_equal(upright(upright(image, orientation), inverse), image)


@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".tif"])
def test_metadata_goes_from_any_format_to_any(tmp_path, source, target):
    exif = camera_exif(orientation=6).tobytes()  # as bytes: of an Exif object Pillow writes no subdirectory into TIFF
    Image.fromarray(picture()).save(tmp_path / f"in{source}", exif=exif, icc_profile=SRGB)
    image, metadata = read_photo(tmp_path / f"in{source}")
    assert metadata.exposure_time == pytest.approx(1 / 125) and metadata.captured == "2024:05:06 07:08:09.25"
    write_image(tmp_path / f"out{target}", image, metadata)
    with Image.open(tmp_path / f"out{target}") as written:
        written.load()
        assert written.size == (24, 32)  # turned
        assert written.info["icc_profile"] == SRGB
        found = written.getexif()
        assert found[ExifTags.Base.Make] == "Acme"
        assert found.get(ExifTags.Base.Orientation, 1) == 1
        if source != ".tif":  # Pillow, which made it, writes ASCII there
            assert found[ExifTags.Base.Artist].encode("latin-1").decode() == "Zoë"
        shot = found.get_ifd(ExifTags.IFD.Exif)
        assert float(shot[ExifTags.Base.ExposureTime]) == pytest.approx(1 / 125)
        assert shot[ExifTags.Base.DateTimeOriginal] == "2024:05:06 07:08:09"
        assert (shot[ExifTags.Base.ExifImageWidth], shot[ExifTags.Base.ExifImageHeight]) == (24, 32)
        assert found.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert not found.get_ifd(ExifTags.IFD.IFD1)  # the thumbnail's directory
    if target in (".png", ".tif"):
        np.testing.assert_array_equal(read_photo(tmp_path / f"out{target}")[0], image)


def test_16_bit_tiff_keeps_its_metadata_and_its_levels(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "in.jpg", exif=camera_exif(), icc_profile=SRGB)
    image = picture((300, 500, 3), np.uint16)
    write_image(tmp_path / "out.tif", image, read_photo(tmp_path / "in.jpg")[1])
    again, metadata = read_photo(tmp_path / "out.tif")
    np.testing.assert_array_equal(again, image)
    assert metadata.icc == SRGB and metadata.exposure_time == pytest.approx(1 / 125)


def test_damaged_exif_is_a_warning(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "bad.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    with pytest.warns(UserWarning):
        image, metadata = read_photo(tmp_path / "bad.jpg")
    assert image.shape == (24, 32, 3) and metadata.icc is None


def refused(path, match):
    with pytest.raises(ValueError, match=match) as raised:
        read_photo(path)
    assert path.name in str(raised.value)


def test_refusals_name_the_file(tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    refused(tmp_path / "text.jpg", "not a picture")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", "not a picture")
    rgb = Image.fromarray(picture((240, 320, 3)))
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        rgb.save(tmp_path / f"whole{suffix}")
        data = (tmp_path / f"whole{suffix}").read_bytes()
        (tmp_path / f"half{suffix}").write_bytes(data[: len(data) // 2])
        refused(tmp_path / f"half{suffix}", "damaged")
    for suffix in (".jpg", ".tif"):
        rgb.convert("CMYK").save(tmp_path / f"cmyk{suffix}")
        refused(tmp_path / f"cmyk{suffix}", "CMYK")
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    refused(tmp_path / "float.tif", "fuse it alone")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_photo(tmp_path / "missing.jpg")


def test_what_a_format_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="alpha"):
        write_image(tmp_path / "a.jpg", picture((4, 4, 4)))
    with pytest.raises(ValueError, match="suffix"):
        write_image(tmp_path / "a.xyz", picture())
    (tmp_path / "a.webp").write_text("before")
    with pytest.raises(ValueError, match="webp cannot hold"):
        write_image(tmp_path / "a.webp", np.zeros((1, 20000, 3), np.uint8))
    assert (tmp_path / "a.webp").read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_colour_is_bt601_by_its_formula():
    for dtype in (np.uint8, np.uint16):
        image = picture(dtype=dtype)
        blue, green, red = np.moveaxis(image.astype(float) / np.iinfo(dtype).max, -1, 0)
        np.testing.assert_allclose(luma(image), 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-6)
        np.testing.assert_array_equal(from_float(to_float(image), dtype), image)


def test_list_images_is_sorted_and_knows_pictures(tmp_path):
    for name in ("b.JPG", "a.tif", "notes.txt", ".hidden.jpg", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.tif", "b.JPG"]
    assert [p.name for p in list_images(tmp_path, recursive=True)] == ["a.tif", "b.JPG", "c.png"]


# Files that are damaged, or made to do harm


def tiff(pixels, planar=False, tile=None, orientation=1):
    """A TIFF's bytes, uncompressed, of (H, W, C) uint8 with H and W multiples of the tile's side."""
    height, width, channels = pixels.shape
    side = tile or height
    blocks = [pixels[y : y + side, x : x + (tile or width)] for y in range(0, height, side)
              for x in range(0, width, tile or width)]  # fmt: skip
    blocks = [np.ascontiguousarray(b[..., c]) for c in range(channels) for b in blocks] if planar else blocks
    data = [block.tobytes() for block in blocks]
    place, length = (324, 325) if tile else (273, 279)
    tags = {256: [width], 257: [height], 258: [8] * channels, 259: [1], 262: [2], 274: [orientation], 277: [channels]}
    tags |= {284: [2 if planar else 1], place: [0] * len(data), length: [len(block) for block in data]}
    tags |= {322: [tile], 323: [tile]} if tile else {278: [height]}
    tags |= {338: [2]} if channels == 4 else {}
    after = 8 + 2 + 12 * len(tags) + 4
    tags[place] = np.cumsum([after + sum(4 * len(v) for v in tags.values() if len(v) > 1), *map(len, data)])[:-1]
    entries, values = [], b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}I", *map(int, numbers))
        entries.append(struct.pack("<HHI", tag, 4, len(numbers)))
        entries[-1] += packed if len(numbers) == 1 else struct.pack("<I", after + len(values))
        values += packed if len(numbers) > 1 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4) + values + b"".join(data)


def encoded(suffix, **options):
    file = io.BytesIO()
    Image.fromarray(picture((240, 320, 3))).save(file, suffix, **options)
    return file.getvalue()


def webp_header(width, height):
    """34 bytes that claim a size."""
    body = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
    return b"RIFF" + struct.pack("<I", 26) + b"WEBPVP8 " + struct.pack("<I", 14) + body + bytes(4)


def jpeg_header(width, height):
    data = bytearray(encoded("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data[:2000])


def png_header(width, height):
    data = bytearray(encoded("PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def tiff_header(width, height):
    return (
        tiff(np.zeros((2, 2, 3), np.uint8))
        .replace(struct.pack("<HHII", 256, 4, 1, 2), struct.pack("<HHII", 256, 4, 1, width))
        .replace(struct.pack("<HHII", 257, 4, 1, 2), struct.pack("<HHII", 257, 4, 1, height))
    )


def scans(count):
    """A progressive JPEG of 2000 x 2000 pixels with its last scan repeated."""
    data = cv2.imencode(".jpg", np.full((2000, 2000, 3), 99, np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("a.webp", webp_header(16383, 16383), "16383 x 16383 pixels in a file of 34 bytes"),
        ("a.jpg", jpeg_header(65500, 65500), "65500 x 65500 pixels"),
        ("a.png", png_header(60000, 60000), "60000 x 60000 pixels"),
        ("a.tif", tiff_header(2**31 - 1, 2**31 - 1), "pixels in a file of"),
        ("a.tif", tiff_header(5000, 3), "damaged"),
        ("a.jpg", scans(2000), r"2000 x 2000 pixels in 2\d\d\d scans"),
    ],
)
def test_a_small_file_that_claims_much_is_refused_at_once(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    start = time.perf_counter()
    refused(tmp_path / name, message)
    assert time.perf_counter() - start < 1


def test_the_limit_on_pixels_can_be_set(tmp_path):
    write_image(tmp_path / "a.png", picture())
    assert read_photo(tmp_path / "a.png", max_pixels=24 * 32)[0].shape == (24, 32, 3)
    with pytest.raises(ValueError, match="32 x 24 pixels .* at most 767: .*--max_pixels"):
        read_photo(tmp_path / "a.png", max_pixels=24 * 32 - 1)
    (tmp_path / "a.webp").write_bytes(webp_header(16383, 16383))
    with pytest.raises(ValueError, match="damaged"):  # no longer by its size
        read_photo(tmp_path / "a.webp", max_pixels=2**30)
    (tmp_path / "b.jpg").write_bytes(scans(60))
    assert read_photo(tmp_path / "b.jpg")[0].shape == (2000, 2000, 3)


def test_damage_that_decoders_pass_over_is_refused(tmp_path, capfd):
    jpeg = encoded("JPEG")
    middle = len(jpeg) // 2
    planar = tiff(picture((64, 64, 3)), planar=True)
    for name, data in {
        "changed.jpg": jpeg[: middle + 300] + jpeg[middle:],  # the rest is shifted
        "ended.jpg": jpeg[:middle] + b"\xff\xd9",
        "planar.tif": planar[: len(planar) // 2],
        "chunk.png": encoded("PNG")[:33] + b"\x7f\xff\xff\xffIDAT" + bytes(500),
        **{f"{kind}.jpg": encoded(kind) for kind in ("GIF", "PPM", "ICO", "PCX")},
    }.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, "damaged, or not a picture")
    (tmp_path / "padded.jpg").write_bytes(jpeg[:-2] + bytes(5) + jpeg[-2:])
    (tmp_path / "whole.jpg").write_bytes(jpeg)
    np.testing.assert_array_equal(*(read_photo(tmp_path / f"{name}.jpg")[0] for name in ("whole", "padded")))
    assert capfd.readouterr().err == ""  # the libraries' own lines are in the errors


def test_what_others_write_to_stderr_meanwhile_is_passed_on(tmp_path):
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from utils.pictures import image
decode = image.DECODERS["PNG"]
image.DECODERS["PNG"] = lambda *args: (os.write(2, b"50%"), decode(*args))[1]
image.read_photo({str(tmp_path / "a.png")!r})
"""
    write_image(tmp_path / "a.png", picture())
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE).stderr == b"50%"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("layout", [{}, {"planar": True}, {"tile": 16}])
@pytest.mark.parametrize("channels", [3, 4])
def test_every_layout_of_a_tiff_is_turned(tmp_path, orientation, layout, channels):
    pixels = picture((32, 48, channels))
    (tmp_path / "a.tif").write_bytes(tiff(pixels, orientation=orientation, **layout))
    image, metadata = read_photo(tmp_path / "a.tif")
    np.testing.assert_array_equal(image, upright(pixels[..., [2, 1, 0, 3][:channels]], orientation))
    assert metadata.orientation == orientation


def test_metadata_is_read_without_decoding(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(7000, 7000))  # without pixels
    assert read_metadata(tmp_path / "a.png").size == (7000, 7000)
    data = encoded("PNG")
    block = camera_exif().tobytes()
    crc = zlib.crc32(b"eXIf" + block)
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", crc)
    (tmp_path / "late.png").write_bytes(data[:-12] + chunk + data[-12:])  # behind the pixels
    assert read_metadata(tmp_path / "late.png").exposure_time == pytest.approx(1 / 125)
    for options in (
        {"lossless": True},
        {"quality": 50},
        {"save_all": True, "append_images": [Image.new("RGB", (320, 240))]},
    ):
        (tmp_path / "a.webp").write_bytes(encoded("WEBP", **options))
        assert read_metadata(tmp_path / "a.webp").size == (320, 240)


def test_damaged_fields_are_left_out_and_the_picture_is_kept(tmp_path):
    exif = camera_exif()
    shot = exif.get_ifd(ExifTags.IFD.Exif)
    shot[ExifTags.Base.ExposureTime] = (0.5, 0.25)
    shot[ExifTags.Base.DateTimeOriginal] = 7
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif, icc_profile=b"no profile")
    with pytest.warns(UserWarning, match="a.jpg: damaged, so not carried over: .*colour profile"):
        image, metadata = read_photo(tmp_path / "a.jpg")
    assert (metadata.exposure_time, metadata.captured, metadata.icc) == (None, None, None)
    assert metadata.exif[0][ExifTags.Base.Make] == "Acme"
    Image.fromarray(picture()).save(tmp_path / "a.tif", tiffinfo={34675: "text", 33432: "mine"})
    with pytest.warns(UserWarning, match="a.tif: damaged, so not carried over: the colour profile"):
        _, metadata = read_photo(tmp_path / "a.tif")
    for suffix in (".jpg", ".png", ".tif", ".webp"):
        write_image(tmp_path / f"b{suffix}", image, metadata)
        assert read_metadata(tmp_path / f"b{suffix}").exif[0][33432] == "mine"


def test_a_picture_is_written_even_if_its_metadata_does_not_fit(tmp_path):
    exif = camera_exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70000  # more than a segment of JPEG
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    image, metadata = read_photo(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="b.jpg: EXIF and colour profile do not fit"):
        write_image(tmp_path / "b.jpg", image, metadata)
    assert read_photo(tmp_path / "b.jpg")[0].shape == image.shape


def noted(tags, main=None):
    """`Metadata` with these tags of EXIF, as read from a file."""
    exif = Image.Exif()
    exif.update(main or {271: "Acme"})
    exif.get_ifd(ExifTags.IFD.Exif).update(tags)
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "JPEG", exif=exif.tobytes())
    return file.getvalue()


def test_exposure_is_time_times_speed_by_the_square_of_the_aperture(tmp_path):
    path = tmp_path / "a.jpg"
    shots = (1, 1, 1, 0), (2, 1, 1, 1), (1, 2, 1, -2), (1, 1, 4, 2), (0.25, 8, 200, -0.356)
    for time_, aperture, speed, stops in shots:
        path.write_bytes(noted({33434: time_, 33437: aperture, 34855: speed}))
        metadata = read_metadata(path)
        assert metadata.stops == pytest.approx(stops, abs=1e-3) and metadata.exposure_time == pytest.approx(time_)
    for missing in (33434, 33437, 34855):
        path.write_bytes(noted({tag: 1 for tag in (33434, 33437, 34855) if tag != missing}))
        assert read_metadata(path).stops is None
    for tags, captured in (
        ({36867: "2024:05:06 07:08:09", 37521: " 25 "}, "2024:05:06 07:08:09.25"),
        ({36867: "2024:05:06 07:08:09"}, "2024:05:06 07:08:09.0"),
        ({37521: "25"}, None),
    ):
        path.write_bytes(noted(tags))
        assert read_metadata(path).captured == captured


def test_tags_that_describe_the_photograph_are_kept_and_no_others(tmp_path):
    """Of MAIN: what a viewer shows. The layout of the pixels is the written file's own, the thumbnail nobody's."""
    kept = "ImageDescription Make Model Software DateTime Artist HostComputer Rating RatingPercent Copyright "
    kept += "XPTitle XPComment XPAuthor XPKeywords XPSubject XResolution YResolution ResolutionUnit"
    kept = {int(ExifTags.Base[name]) for name in kept.split()} | {274}
    others = {254, 256, 257, 258, 259, 262, 277, 284, 301, 318, 332, 529, 700, 33723, 40090, 40096, 50341}
    for tag in sorted(kept | others):
        value = {2: "x", 3: 2, 4: 2, 5: 72.0}.get(TiffTags.lookup(tag).type, b"x\0")
        (tmp_path / "a.jpg").write_bytes(noted({33434: 1}, {tag: value}))
        assert (tag in read_metadata(tmp_path / "a.jpg").exif.get(0, {})) == (tag in kept), tag


@pytest.mark.parametrize("value, expected", [(0, 1), (1, 1), (8, 8), (9, 1), (2**15, 1)])
def test_orientations_are_1_to_8(tmp_path, value, expected):
    (tmp_path / "a.jpg").write_bytes(noted({}, {274: value}))
    assert read_metadata(tmp_path / "a.jpg").orientation == expected


def test_of_a_file_with_several_pictures_the_first_is_read(tmp_path):
    first, second = (Image.fromarray(picture()) for _ in range(2))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], exif=camera_exif())
    first.save(tmp_path / "b.jpg", "JPEG")
    (image, metadata), (alone, _) = (read_photo(tmp_path / name) for name in ("a.jpg", "b.jpg"))
    np.testing.assert_array_equal(image, alone)
    assert metadata.format == "MPO" and metadata.exif[0][271] == "Acme"


def test_lossy_files_keep_colour_at_full_resolution(tmp_path):
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (200, 60, 60), (60, 60, 200)  # of one brightness or so, one pixel wide
    write_image(tmp_path / "a.jpg", stripes)
    data = (tmp_path / "a.jpg").read_bytes()
    start = data.index(b"\xff\xc0")
    assert [data[start + 11 + 3 * k] for k in range(3)] == [0x11] * 3  # no channel is subsampled
    for suffix in (".jpg", ".avif"):
        write_image(tmp_path / f"a{suffix}", stripes)
        assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - stripes).mean() < 12


@pytest.mark.parametrize("ends", [(0, 8000), (57000, 65535)])
def test_sixteen_bits_are_rounded_to_the_ten_of_heic(tmp_path, ends):
    heif = pytest.importorskip("pillow_heif")
    gray = np.linspace(*ends, 64 * 48).astype(np.uint16).reshape(48, 64)
    write_image(tmp_path / "a.heic", np.dstack([gray] * 3), quality=100)
    kept = np.asarray(heif.open_heif(tmp_path / "a.heic", convert_hdr_to_8bit=False))[..., 1] >> 6  # the file's numbers
    assert abs((kept - gray / 65535 * 1023).mean()) < 0.15  # nearly 0.5 where bits are cut off
    assert np.abs(read_image(tmp_path / "a.heic")[..., 1] / 65535 - kept / 1023).max() < 1e-4
