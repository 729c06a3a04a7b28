"""What a person may change in a fused picture: its brightness, the strength of its local contrast, its warmth."""

from dataclasses import dataclass

import cv2
import numpy as np

from utils.errors import UserError
from utils.fusing.blend import STRIP_PIXELS, enlarge, in_strips
from utils.pictures.pixels import luma, shrink

SMALL_SIDE = 512  # pixels, longer side of the copy on which surroundings are measured
SURROUNDINGS = 41  # pixels of that copy, side of the window that counts as a pixel's surroundings: 8 % of the picture
STEP = 0.1  # of luminance: larger ones count as edges between things, smaller ones as their local contrast
FULL_CONTRAST = 0.75  # share of the local contrast that 1 adds and -1 takes away
FULL_WARMTH = 0.15  # stops of the encoded values, up for red and down for blue: about 1,000 kelvins of daylight


@dataclass(frozen=True)
class Look:
    """Changes of a fused picture, each in [-1, 1]; with 0 it stays as it is, bit for bit."""

    brightness: float = 0.0  # 1: what was 0.25 becomes 0.5, what was 0.5 becomes 0.71; black and white stay
    contrast: float = 0.0  # local: how much a pixel differs from its surroundings
    warmth: float = 0.0  # from blue (-1) to yellow; luminance of gray stays

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (isinstance(value, (int, float)) and -1 <= value <= 1):
                raise UserError(f"{name} is {value!r}: expected a number from -1 to 1")


class Adjustment:
    """Changes a picture, or any part of it alike, by a look."""

    def __init__(self, image: np.ndarray, look: Look):
        """Measures the whole picture: (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16."""
        self.look, self.shape = look, image.shape[:2]
        self.levels = int(np.iinfo(image.dtype).max)
        self.kind = cv2.CV_8U if image.dtype == np.uint8 else cv2.CV_16U
        channels = 1 if image.ndim == 2 else 3
        red = 2 ** (FULL_WARMTH * look.warmth)
        gains = np.array([1 / red, 1, red]) / (0.114 / red + 0.587 + 0.299 * red)  # of B, G, R
        values = np.linspace(0, 1, self.levels + 1)
        tones = [np.minimum(values * gain, 1) for gain in (gains if channels == 3 else [1.0])]
        self.curves = [(tone ** (2.0**-look.brightness)).astype(np.float32) for tone in tones]
        self.slope = self.offset = np.zeros((1, 1), np.float32)
        if look.contrast:
            self.slope, self.offset = surroundings(luma(self._toned(shrink(image, side=SMALL_SIDE))))

    def _toned(self, part: np.ndarray) -> np.ndarray:
        """Returns a part, (h, w) or (h, w, 3) float32 in [0, 1], with brightness and warmth changed; without alpha."""
        if part.ndim == 2:
            return self.curves[0][part]
        return cv2.merge([curve[part[..., c]] for c, curve in enumerate(self.curves)])

    def apply(self, part: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray:
        """Returns a changed part of the picture, of its shape and dtype; `top` and `left` say where it lies."""
        x = self._toned(part)
        if self.look.contrast:
            y = luma(x)
            rows, columns = slice(top, top + part.shape[0]), slice(left, left + part.shape[1])
            slope, offset = (enlarge(plane, rows, *self.shape)[:, columns] for plane in (self.slope, self.offset))
            detail = FULL_CONTRAST * self.look.contrast * (y - (slope * y + offset))
            x = x + (detail if x.ndim == 2 else detail[..., None])
        changed = cv2.add(x * np.float32(self.levels), 0, dtype=self.kind)  # rounds, and clips at black and white
        return changed if part.shape[2:] != (4,) else np.dstack([changed, part[..., 3]])


def adjust(image: np.ndarray, look: Look) -> np.ndarray:
    """Returns a picture changed by a look, of its shape and dtype; `image` as for `Adjustment`, itself if none is."""
    if look == Look():
        return image
    adjustment, out = Adjustment(image, look), np.empty_like(image)

    def adjust_rows(rows: slice) -> None:
        out[rows] = adjustment.apply(image[rows], rows.start)

    in_strips(adjust_rows, image.shape[0], image.shape[1], STRIP_PIXELS)
    return out


def surroundings(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (slope, offset), each (h, w): slope * y + offset is y without its local contrast, but with its edges.

    The guided filter of He et al., 2010, with y (h, w) float32 in [0, 1] as its own guide; its planes can be enlarged.
    """

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (SURROUNDINGS, SURROUNDINGS))

    mean_y = mean(y)
    variance = np.maximum(mean(y * y) - mean_y**2, 0)
    slope = variance / (variance + STEP**2)
    return mean(slope), mean(mean_y - slope * mean_y)
