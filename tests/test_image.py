"""utils/util_image.py and utils/util_metadata.py: formats, colour, metadata, refusals."""

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from utils.util_image import (
    bgr_to_ycrcb,
    from_float,
    list_images,
    luma,
    read_image,
    read_photo,
    to_float,
    upright,
    write_image,
    ycrcb_to_bgr,
)

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
    refused(tmp_path / "float.tif", "F pictures")
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
    bgr = RNG.random((5, 7, 3), np.float32)
    blue, green, red = bgr[..., 0], bgr[..., 1], bgr[..., 2]
    y, cr, cb = np.moveaxis(bgr_to_ycrcb(bgr), -1, 0)
    expected = 0.299 * red + 0.587 * green + 0.114 * blue
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(cr, (red - expected) * 0.713 + 0.5, atol=1e-5)
    np.testing.assert_allclose(cb, (blue - expected) * 0.564 + 0.5, atol=1e-5)
    np.testing.assert_allclose(ycrcb_to_bgr(bgr_to_ycrcb(bgr)), bgr, atol=1e-3)
    for dtype in (np.uint8, np.uint16):
        image = picture(dtype=dtype)
        np.testing.assert_allclose(luma(image), bgr_to_ycrcb(to_float(image))[..., 0], atol=1e-6)
        np.testing.assert_array_equal(from_float(to_float(image), dtype), image)


def test_list_images_is_sorted_and_knows_pictures(tmp_path):
    for name in ("b.JPG", "a.tif", "notes.txt", ".hidden.jpg", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.tif", "b.JPG"]
    assert [p.name for p in list_images(tmp_path, recursive=True)] == ["a.tif", "b.JPG", "c.png"]
