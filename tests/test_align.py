"""utils/stack/align.py: known shifts and rotations of real pictures are found again."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.pictures.image import list_images, read_image
from utils.stack import align
from utils.stack.align import align_exposures

SCENE = Path(__file__).parents[1] / "data_test" / "city"


def scene():
    return [read_image(path) for path in list_images(SCENE)]  # dark, middle, bright


def moved(image, matrix):
    """The picture whose pixel matrix @ p shows what `image` shows at p."""
    return cv2.warpPerspective(image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def residual(found, true, height, width):
    """The largest distance in pixels between two maps on a grid over the picture."""
    grid = np.float64([[[x, y] for x in np.linspace(0, width - 1, 9) for y in np.linspace(0, height - 1, 9)]])
    distance = cv2.perspectiveTransform(grid, found) - cv2.perspectiveTransform(grid, true)
    return np.linalg.norm(distance, axis=2).max()


def shift(dx, dy):
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]], float)


def rotation(angle, scale, dx, dy, height, width):
    matrix = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale), [0, 0, 1]])
    return shift(dx, dy) @ matrix @ np.array([[1, 0, 0], [0, 1, 0], [1e-5, -5e-6, 1]])


@pytest.mark.parametrize("other", [0, 2], ids=["darker", "brighter"])
def test_mtb_finds_whole_shifts(other):
    images = scene()
    for dx, dy in ((13, -7), (-25, 4)):
        true = shift(dx, dy)
        found = align._shift(align._gray(images[1]), align._gray(moved(images[other], true)))
        assert residual(found, true, *images[1].shape[:2]) < 0.5


@pytest.mark.long
@pytest.mark.parametrize("other", [0, 2], ids=["darker", "brighter"])
def test_homography_finds_rotations(other):
    images = scene()
    height, width = images[1].shape[:2]
    true = rotation(1.3, 1.006, 11.4, -6.7, height, width)
    found = align._homography(align._gray(images[1]), align._gray(moved(images[other], true)))
    assert residual(found, true, height, width) < 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shifted_exposures_come_back_cropped(dtype):
    images = [image.astype(dtype) * (257 if dtype == np.uint16 else 1) for image in scene()]
    moved_ones = [moved(images[0], shift(8, -6)), images[1], moved(images[2], shift(-5, 3))]
    aligned = align_exposures(moved_ones, "mtb")
    height, width = images[0].shape[:2]
    assert {x.shape for x in aligned} == {(height - 9, width - 13, 3)} and aligned[0].dtype == dtype
    for one, image in zip(aligned, images, strict=True):
        np.testing.assert_array_equal(one, image[6 : height - 3, 5 : width - 8])


@pytest.mark.long
def test_a_rotated_bracket_comes_close_to_the_original():
    images = scene()
    height, width = images[0].shape[:2]
    tilted = [moved(images[0], rotation(-0.8, 1, 4.3, 2.6, height, width)), images[1], images[2]]
    aligned = align_exposures(tilted, "homography")
    h, w = aligned[1].shape[:2]
    before, after = (
        np.abs(cv2.matchTemplate(images[k].astype(np.float32), aligned[k].astype(np.float32), cv2.TM_SQDIFF)).min()
        for k in (0, 1)
    )
    assert h > height - 30 and w > width - 40
    assert after / aligned[1].size < 0.5  # not resampled by more than a rounding
    assert before / aligned[0].size < 20  # mean squared difference in grey levels


def test_what_cannot_be_aligned_is_refused():
    flat = [np.full((200, 300, 3), value, np.uint8) for value in (20, 200)]
    with pytest.raises(ValueError, match="cannot be aligned"):
        align_exposures(flat, "homography")
    with pytest.raises(ValueError, match="mtb or homography"):
        align_exposures(flat, "magic")
