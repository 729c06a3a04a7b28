"""HDR: the light of a scene, and the gain map that leads from the fused picture to it.

The fused picture shows everything at once, so it tells bright from dark less than the scene did. The gain map says for
each place how much brighter a screen that can shall show it: as much as the scene's light was above the picture's, both
equal in the mid-tones.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from utils.fusing.blend import in_strips
from utils.pictures.hdr import OFFSET, GainMap
from utils.pictures.light import from_srgb
from utils.pictures.pixels import smoothstep, to_float
from utils.stack.response import fit_response

MOST, LEAST = 4.0, 0.25  # stops: bounds of a map's largest gain
MIDDLE = 0.1, 0.4  # light of the picture, 1 is white, that an HDR screen shall show as bright as any
SHADOWS = 0.03, 0.1  # light of the scene, in the picture's unit, between which gain sets in: darker stays as it is
LARGE = 2**21  # pixels of a picture from which on its gain is computed on a copy of a quarter of its sides, for speed
QUARTER, FINE = 4, 1.5  # times as long as the map's are the sides of a large picture, and of a smaller one
STRIP_PIXELS = 1 << 16  # pixels that are merged at a time
USUAL = 0.4, 2.5  # bounds of the exponent that noted exposures may ask for: beyond, they are no exposures
LUMINANCE = np.array([[0.0722, 0.7152, 0.2126]], np.float32)  # of B, G, R


def scene_light(
    images: Sequence[np.ndarray], stops: Sequence[float] | None = None, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Returns a scene's light, (h, w) or (h, w, 3) BGR float32, linear, 1 is white in the darkest shot.

    The response that renders the shots leaves open by which power its light must be raised (`stack.response`). The
    noted exposures tell it; without them the camera's curve is taken to be as steep as sRGB's.

    Args:
        images: two or more (H, W), (H, W, 3) BGR or (H, W, 4) with alpha, uint8 or uint16, of one shape.
        stops: exposure of each, as the camera noted it.
        size: (h, w), smaller than the images; None is theirs.
    """
    response = fit_response(images, stops)
    values = np.linspace(0.1, 0.9, 50)
    own, usual = np.log(response.light(values)), np.log(from_srgb(values))
    exponent = float((own * usual).sum() / (own * own).sum())
    if stops and np.ptp(response.stops) > 0:
        noted = float(np.ptp(stops) / np.ptp(response.stops))
        exponent = noted if USUAL[0] <= noted <= USUAL[1] else exponent
    if size:
        images = [cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA) for image in images]
    height, width = images[0].shape[:2]
    light = np.empty((height, width, 3)[: images[0].ndim], np.float32)

    def merge_rows(rows: slice) -> None:
        cv2.pow(response.merge([np.ascontiguousarray(image[rows]) for image in images]), exponent, light[rows])

    in_strips(merge_rows, height, width, STRIP_PIXELS)
    return light


def light_size(height: int, width: int, fine: float = 1) -> tuple[int, int]:
    """Returns (h, w) at which the light of a picture is needed for its gain; with FINE those of its gain map."""
    share = QUARTER if height * width > LARGE else fine
    return max(1, round(height / share)), max(1, round(width / share))


def gain_map(picture: np.ndarray, light: np.ndarray) -> GainMap:
    """Returns the gain map from a fused picture to the light of its scene, bounded by 0 and MOST stops.

    Args:
        picture: (H, W, 3) BGR uint8 or uint16, with sRGB's curve.
        light: (h, w, 3) BGR float32 in any unit, of the size `light_size`.
    """
    small = cv2.resize(picture[..., :3], light.shape[1::-1], interpolation=cv2.INTER_AREA)
    table = from_srgb(np.linspace(0, 1, np.iinfo(picture.dtype).max + 1, dtype=np.float32))
    shown = cv2.transform(cv2.LUT(small, table), LUMINANCE)
    there = cv2.transform(light, LUMINANCE)
    inside = (shown > MIDDLE[0]) & (shown < MIDDLE[1])
    inside = (inside if inside.any() else shown > 0) & (there > 0)
    there /= np.median(there[inside] / shown[inside]) if inside.any() else 1
    gain = cv2.divide(there + np.float32(OFFSET), shown + np.float32(OFFSET))
    gain = np.clip(np.log2(gain, out=gain), 0, MOST, out=gain)
    gain *= smoothstep(*SHADOWS, there)
    height, width = picture.shape[:2]
    gain = cv2.resize(gain, light_size(height, width, FINE)[::-1], interpolation=cv2.INTER_AREA)
    most = max(float(gain.max()), LEAST)
    return GainMap(np.rint(gain * (255 / most)).astype(np.uint8), most)


def rendition(picture: np.ndarray, gain: GainMap) -> np.ndarray:
    """Returns the picture with all of its gain as light, (H, W, 3) BGR float32: 1 is the picture's own white.

    Args:
        picture: (H, W, 3) BGR uint8 or uint16, with sRGB's curve.
    """
    stops = cv2.resize(gain.levels, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR) * np.float32(gain.most / 255)
    light = from_srgb(to_float(picture[..., :3]))
    return np.maximum((light + OFFSET) * np.exp2(stops)[..., None] - OFFSET, 0)
