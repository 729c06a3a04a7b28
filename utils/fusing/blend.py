"""Full size: the merged radiance, shown at the exposure that the decision chose for each pixel, in strips."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from utils.fusing.colour import KEPT
from utils.pictures.pixels import from_float, luma
from utils.progress import counted
from utils.stack.noise import calm, calming
from utils.stack.response import NOISE, Response

WINDOW = 5  # pixels of the small copy, side of the window in which stops follow the light
STEEPEST = 0.3  # stops per stop of light: more would multiply the contrast of single pixels, to black specks
FLAT = 0.3  # stops squared, variance of light in a window, below which it has no edge
KNEE = 0.85  # value from which brighter light is bent towards white
STRIP_PIXELS = 1 << 17  # pixels per strip: its float planes fit in a core's cache


def develop(
    images: Sequence[np.ndarray],
    response: Response,
    stops: np.ndarray,
    radiance: np.ndarray,
    strip_pixels: int = STRIP_PIXELS,
) -> np.ndarray:
    """Returns the fused picture at full size, of the images' shape and dtype.

    Args:
        images: the shots, (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8 or uint16. Alpha is averaged.
        response: of these shots.
        stops: (h, w) float32, the exposure at which each pixel of a small copy is shown; enlarged along edges.
        radiance: of the small copy, (h, w) or (h, w, 3), from `Response.merge`.
        strip_pixels: pixels per strip; the result does not depend on it.
    """
    image = images[0]
    height, width = image.shape[:2]
    out = np.empty_like(image)

    def develop_rows(rows: slice) -> None:
        whole = response.merge(
            [
                x[rows] if lines is None else calm(x[rows], enlarge(lines, rows, height, width))
                for x, lines in zip(images, noisy, strict=True)
            ]
        )
        slope, offset = cv2.split(enlarge(edges, rows, height, width))
        gain = cv2.exp((slope * light_in_stops(whole, response) + offset) * np.float32(np.log(2)))
        part = from_float(response.render(unburnt(whole, gain, knee), kept=KEPT), image.dtype)
        if image.shape[2:] == (4,):
            alpha = np.sum([x[rows, :, 3] for x in images], 0, np.uint32)
            part = np.dstack([part, ((alpha + len(images) // 2) // len(images)).astype(image.dtype)])
        out[rows] = part

    knee = np.float32(response.light(np.array(KNEE)))
    edges = along_edges(stops, light_in_stops(radiance, response))
    noisy = [calming(x, response.handover(k), *stops.shape) for k, x in enumerate(images)]
    in_strips(develop_rows, height, width, strip_pixels, "blending")
    return out


def in_strips(work: Callable[[slice], None], height: int, width: int, pixels: int, what: str = "") -> None:
    """Calls `work` with the rows of each strip of a picture, of about so many pixels, on all cores.

    Args:
        what: how a listener is told of it, see `progress`; "" tells nobody.
    """
    step = max(1, pixels // width)
    strips = [slice(top, min(top + step, height)) for top in range(0, height, step)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(work, strips)
        list(counted(what, done, len(strips)) if what else done)


def along_edges(stops: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Returns slope and offset (h, w, 2) of stops as a line of light around each pixel; all (h, w) float32, in stops.

    Enlarged, slope x light + offset follows the edges of the light at full size, so that they have no rim: the fast
    guided filter (He and Sun, 2015). Differs from it in that nothing is smoothed: with the light that is given, the
    line gives the stops that are given.
    """

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (WINDOW, WINDOW))

    mean_light = mean(light)
    slope = mean(light * stops) - mean_light * mean(stops)
    slope = slope / (np.maximum(mean(light * light) - mean_light**2, 0) + FLAT)
    slope = mean(np.clip(slope, -1, STEEPEST))  # -1 shows all light alike
    return np.dstack([slope, stops - slope * light])


def unburnt(radiance: np.ndarray, gain: np.ndarray, knee: np.float32) -> np.ndarray:
    """Returns radiance times `gain` (h, w), bent towards white from the `knee` on: float32 of the radiance's shape.

    Light x over the knee becomes x / (1 + x / (1 - knee)) over it (Reinhard et al., "Photographic tone reproduction for
    digital images", 2002, whose curve begins at black). So texture of highlights stays, also what is too small for the
    decision. A channel is bent by the mean of itself and the luminance: bright colours pale half as much as on film.
    The nearer the darkest shot is to clipping, the less, since suns and lamps are white; and nothing is shown darker
    than in that shot.

    Args:
        radiance: (h, w) or (h, w, 3) float32, as `Response.merge` returns it.
        knee: in (0, 1), where 1 is white.
    """
    shown = radiance * (gain if radiance.ndim == 2 else cv2.merge([gain] * 3))
    bright = shown if radiance.ndim == 2 else (shown + cv2.merge([luma(shown)] * 3)) / 2
    over = np.maximum(bright - knee, 0)
    share = over * over / ((over + 1 - knee) * (over + knee))  # of the light, which is lost
    bent = shown * share * np.maximum(1 - radiance, 0)
    return np.maximum(shown - bent, np.minimum(shown, radiance))


def light_in_stops(radiance: np.ndarray, response: Response) -> np.ndarray:
    """Returns the light (h, w) of a radiance in stops; at least what the brightest shot shows as NOISE."""
    darkest = response.light(np.array(NOISE)) / 2 ** max(response.stops)
    return cv2.log(np.maximum(luma(radiance), np.float32(darkest))) * np.float32(1 / np.log(2))


def enlarge(plane: np.ndarray, rows: slice, height: int, width: int) -> np.ndarray:
    """Returns the given rows of a plane (h, w[, C]) float32 enlarged bilinearly to (height, width).

    Vertically first, then each row on its own: so a row's bits do not depend on the strip that it is in.
    """
    h = plane.shape[0]
    y = np.clip((np.arange(rows.start, rows.stop) + 0.5) * (h / height) - 0.5, 0, h - 1)
    above = y.astype(int)
    share = (y - above).astype(np.float32).reshape(-1, *[1] * (plane.ndim - 1))
    mixed = plane[above] * (1 - share) + plane[np.minimum(above + 1, h - 1)] * share
    if len(mixed) == 1:
        mixed = np.repeat(mixed, 2, 0)  # OpenCV rounds differently for a single row
    return cv2.resize(mixed, (width, len(mixed)), interpolation=cv2.INTER_LINEAR)[: len(y)]
