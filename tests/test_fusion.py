"""utils/util_fusion.py: tiles, chroma, symmetry, ranges, the authors' pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from models import fuse_model
from models.DeepFuse import ARCHITECTURES
from utils.util_fusion import Fuser, check_exposures, fuse_chroma, read_exposures
from utils.util_image import luma, read_photo, write_image

SHARED = Path(__file__).parents[2] / "shared"
RNG = np.random.default_rng(0)


def exposures(count=2, shape=(90, 117, 3), dtype=np.uint8):
    """Smooth pictures of one scene, dark to bright."""
    scene = cv2.resize(RNG.random((12, 15, *shape[2:]), np.float32), shape[1::-1])
    top = np.iinfo(dtype).max
    return [np.clip(scene * top * gain, 0, top).astype(dtype) for gain in np.linspace(0.3, 1.6, count)]


def network(name="DeepFuse_pyramid", channels=1, scale=0.1):
    """A network that was never trained, with weights strong enough to tell pixels apart."""
    torch.manual_seed(0)
    model = fuse_model(name, image_channels=channels)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, scale)
    return model


@pytest.mark.parametrize("channels", [1, 3], ids=["luminance", "rgb"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tiles_equal_the_whole(name, channels):
    model = network(name, channels)
    for height, width in ((87, 300), (33, 191), (40, 1), (1, 1)):
        y = torch.rand(3, 1, channels, height, width)
        fused = torch.empty(channels, height, width)
        for box, y_hat in Fuser(model, tile=36)._tiles(lambda box, y=y: list(y[(..., *box)]), height, width):
            fused[(..., *box)] = torch.from_numpy(y_hat).permute(2, 0, 1)
        stretch = name == "DeepFuse_authors"
        with torch.inference_mode():
            expected = model(*((16 + 219 * y) / 255 if stretch else y))[0]
        if stretch and height * width > 1:
            expected = (expected - expected.min()) / (expected.max() - expected.min())
        if height * width > 1:
            assert (fused - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


def test_chroma_equals_a_loop_over_pixels():
    stack = RNG.random((3, 6, 5, 2)).astype(np.float32)
    stack[:, 0, 0] = 0.5
    fused = fuse_chroma(list(stack))
    for index in np.ndindex(6, 5, 2):
        values = [float(c[index]) * 255 for c in stack]
        weights = [abs(c - 127.5) for c in values]
        total = sum(weights)
        expected = sum(c * w for c, w in zip(values, weights, strict=True)) / total if total else 127.5
        assert fused[index] * 255 == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_order_does_not_matter(name):
    fuser = Fuser(network(name))
    a, b, c = exposures(3)
    for one, other in (([a, b], [b, a]), ([a, b, c], [c, a, b])):
        difference = np.abs(fuser.fuse(one).astype(int) - fuser.fuse(other))
        assert difference.max() <= 1  # sums of floats in another order


@pytest.mark.parametrize("channels", [1, 3], ids=["luminance", "rgb"])
@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3), (40, 50, 4), (1, 1, 3), (1, 9)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shape_and_type_stay(shape, dtype, channels):
    fused = Fuser(network(channels=channels)).fuse(exposures(2, shape, dtype))
    assert fused.shape == shape and fused.dtype == dtype


class Mean(torch.nn.Module):
    """A stand-in for a network: the mean of the exposures."""

    arch, halo, name = ARCHITECTURES["DeepFuse"], 0, "mean"

    def forward(self, *y):
        return sum(y) / len(y)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_identical_exposures_give_themselves_where_the_network_does(dtype):
    image = RNG.integers(0, np.iinfo(dtype).max, (40, 50, 4), dtype, endpoint=True)
    difference = np.abs(Fuser(Mean()).fuse([image] * 3).astype(int) - image)
    assert difference.max() <= np.iinfo(dtype).max / 1000  # OpenCV's chroma has three digits
    assert difference[..., 3].max() == 0


def test_16_bits_are_16_bits_inside():
    ramp = np.tile(np.arange(0, 60000, 20, dtype=np.uint16), (4, 1))
    fused = Fuser(Mean()).fuse([ramp, ramp + 7])
    assert len(np.unique(fused)) > 2900
    colour = Fuser(Mean()).fuse([np.dstack([ramp] * 3), np.dstack([ramp + 7] * 3)])
    assert len(np.unique(colour)) > 2900


def test_the_picture_is_clamped_not_stretched():
    class Shift(Mean):
        def forward(self, *y):
            return y[0] + 0.5

    gray = np.array([[0, 60, 200]], np.uint8)
    np.testing.assert_array_equal(Fuser(Shift()).fuse([gray, gray]), [[128, 188, 255]])


def test_alpha_is_averaged():
    a, b = (np.full((5, 5, 4), value, np.uint8) for value in (100, 200))
    assert (Fuser(Mean()).fuse([a, b])[..., 3] == 150).all()


def test_a_gpu_short_of_memory_gets_smaller_tiles():
    class Short(Mean):
        sides = []

        def forward(self, *y):
            self.sides.append(max(y[0].shape[-2:]))
            if self.sides[-1] > 100:
                raise torch.cuda.OutOfMemoryError("no memory")
            return super().forward(*y)

    images = exposures(2, (300, 410, 3))
    fuser = Fuser(Short(), tile=400)
    np.testing.assert_array_equal(fuser.fuse(images), Fuser(Mean()).fuse(images))
    assert Short.sides[:3] == [400, 200, 100] and fuser.tile == 100

    class Never(Mean):
        def forward(self, *y):
            raise torch.cuda.OutOfMemoryError("no memory")

    with pytest.raises(ValueError, match="no memory for a tile of 64"):
        Fuser(Never(), tile=400).fuse(images)
    with pytest.raises(ValueError, match="even"):
        Fuser(Mean(), tile=33)


def test_fuse_luminance_is_the_network():
    model = network()
    y = [luma(image) for image in exposures()]
    with torch.inference_mode():
        expected = model(*(torch.from_numpy(x)[None, None] for x in y))[0, 0].numpy()
    np.testing.assert_allclose(Fuser(model).fuse_luminance(y), expected, atol=1e-5)


@pytest.mark.skipif(not (SHARED / "data/authors_release").is_dir(), reason="needs the authors' release in ../shared")
def test_the_authors_pictures_come_out():
    release, halo = SHARED / "data/authors_release", 14
    fuser = Fuser.from_checkpoint(release / "DF_model_Epoch99.npz")
    for path in sorted((release / "inputs").glob("*.png")):
        image, expected = cv2.imread(str(path)), cv2.imread(str(release / "outputs" / path.name), cv2.IMREAD_GRAYSCALE)
        piece = slice(300, 400), slice(300, 400)  # the whole takes a minute; it differs by the stretch alone
        over, under = ((image[(*piece, c)].astype(np.float32) - 16) / 219 for c in (2, 1))  # they hold 16..235
        fused = fuser.fuse_luminance([over, under])[halo:-halo, halo:-halo].ravel()
        expected = expected[piece][halo:-halo, halo:-halo].ravel()
        stretched = np.polyval(np.polyfit(fused, expected, 1), fused)
        assert np.abs(stretched - expected).mean() <= 0.3


def test_bad_exposures_are_refused():
    a, b = exposures()
    for images, match in (
        ([a], "two or more"),
        ([a, b[:-1]], "agree"),
        ([a, b.astype(np.uint16)], "agree"),
        ([a.astype(np.float32), b], "expected"),
        ([a[..., :2], b[..., :2]], "expected"),
        ([a[:0], b[:0]], "expected"),
    ):
        with pytest.raises(ValueError, match=match):
            check_exposures(images)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    a, b = exposures()
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, image in zip(paths, (a, b), strict=True):
        write_image(path, image)
    out = tmp_path / "out.png"
    for name, image, match in (
        ("small", b[:-3], "size"),
        ("deep", b.astype(np.uint16), "type"),
        ("gray", b[..., 0], "size"),
    ):
        write_image(tmp_path / f"{name}.png", image)
        with pytest.raises(ValueError, match=match) as raised:
            read_exposures([paths[0], tmp_path / f"{name}.png"], out)
        assert f"{name}.png" in str(raised.value)
    with pytest.raises(ValueError, match="overwritten"):
        read_exposures(paths, paths[1])
    with pytest.raises(ValueError, match="two or more"):
        read_exposures(paths[:1], out)
    with pytest.raises(ValueError, match="suffix"):
        read_exposures(paths, tmp_path / "out")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(b).save(tmp_path / "profile.png", icc_profile=profile)
    with pytest.raises(ValueError, match="colour profile"):
        read_exposures([paths[0], tmp_path / "profile.png"], out)
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(b).save(tmp_path / "turned.png", exif=exif)
    with pytest.raises(ValueError, match="orientation"):
        read_exposures([paths[0], tmp_path / "turned.png"], out)


def test_fuse_files_takes_metadata_from_the_file_that_is_named(tmp_path):
    paths = []
    for k, image in enumerate(exposures(3)):
        exif = Image.Exif()
        exif[271] = f"maker {k}"
        paths.append(tmp_path / f"{k}.jpg")
        Image.fromarray(image).save(paths[-1], exif=exif)
    for source, maker in ((None, "maker 0"), (paths[2], "maker 2")):
        Fuser(Mean()).fuse_files(paths, tmp_path / "out.png", metadata_from=source)
        assert read_photo(tmp_path / "out.png")[1].exif[0][271] == maker
