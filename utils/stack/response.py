"""A scene's light: the camera's response curve, fitted from the shots, and all shots merged into one linear radiance.

A camera turns light x, where 1 is white, into a value v = (x (1 + s) / (x + s))^(1 / g): a power, and a shoulder that
flattens bright light. `fit_response` finds g and s, and how many stops lie between the shots, from the pixels that two
shots both expose. `Response.merge` makes of the shots one radiance, `Response.render` shows it at any exposure.

Without noted exposure times the stops are known but for a factor: a curve with more of them renders the same pictures.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import DTypeLike

from utils.pictures.pixels import from_float, luma, smoothstep, to_float

PIXELS = 65_536  # of each shot that the fit looks at, about
DARK, BRIGHT = (4 / 255, 12 / 255), (240 / 255, 250 / 255)  # between noise and what tells of the curve, and clipped
FEW = 30  # pixels of a level that make its median half as trustworthy as that of many
POWERS, SHOULDERS = (1.0, 3.4), (0.03, 10.0)  # bounds of g and s; with s = 10 the curve is nearly a power
USUAL_POWER, USUAL_SHOULDER = (2.0, 0.15), (0.07, 0.5)  # g and s of whole brackets, and how far logarithms may be off
NOTED, NOTED_SLOPE = 20.0, 50.0  # levels that a gap noted by the camera counts as; each shows a stop as so many levels
BORDER = 20.0  # levels that the value counts as at which the brighter shot clips
BRIGHTEST = 0.001  # share of a shot that counts as its brightest pixels, where no more of the brighter one clips
ROUNDS = 5  # of the robust mean: forty give the same curves
TINT = 0.05  # stops: a channel's gain that differs less is more likely the curve's error than white balance
CLIPPING = 0.8, 0.97  # of the largest channel, between which a shot hands over to darker ones: hues shift before white
OWN_CLIPPING = 0.9, 0.99  # the same of a single channel beside others that are clipped
BLACK = 0.2  # trust in a channel that is black beside others: noise of a dark shot must not tint it
SINGLE = 0.5  # trust in a channel beside clipped ones, times the next darker shot's where that has noise
SURE = 0.95  # values above it follow the fitted curve so badly that colours break; below .95 flares get dark holes
GRAYED = 10 / 255  # of the largest channel: half of the colour there is noise
NOISE = 8 / 255  # values below are mostly noise and JPEG's steps
FAINT = 16 / 255  # as which a shot shows another one's white so that it is half sure of it
UNSURE = 0.75  # share of a clipped shot's white that does not count where the next darker shot is sure of it


@dataclass(frozen=True)
class Response:
    """How a scene's light became its shots; light is in units of the darkest shot's white: 1 just clips in it."""

    power: float  # g
    shoulder: float  # s
    stops: tuple[float, ...]  # exposure of each shot over the darkest one's
    tints: tuple[tuple[float, ...], ...]  # gain of each channel of each shot, in stops: white balance; mean 0

    def light(self, values: np.ndarray) -> np.ndarray:
        """Returns the light in [0, 1], of any shape, that the camera records as these values in [0, 1], float."""
        raised = values**self.power
        return self.shoulder * raised / (1 + self.shoulder - raised)

    def render(self, radiance: np.ndarray, gain: float | np.ndarray = 1.0, kept: float = 0.0) -> np.ndarray:
        """Returns what the camera would record of radiance times `gain`: float32 in [0, 1], of the radiance's shape.

        The shoulder s flattens each channel by its own light x: v = (x (1 + s) / (x + s))^(1 / g), so bright colours
        pale. Flattened by the luminance instead, they keep the ratios of their light.

        Args:
            radiance: (h, w) or (h, w, 3) float32, at least 0, as `merge` returns it.
            gain: 2**stops[k] gives the picture that shot k would be without noise; a number, or (h, w) for each pixel.
            kept: share of the luminance in what flattens a channel; 0 is the camera's own way.
        """
        if np.ndim(gain):
            gain = cv2.merge([gain] * 3) if radiance.ndim == 3 else gain
        light = np.clip(radiance * np.asarray(gain, np.float32), 1e-12, 1)  # no zero: its logarithm is infinite
        flattens = light
        if kept and radiance.ndim == 3:
            flattens = light * np.float32(1 - kept) + cv2.merge([luma(light) * np.float32(kept)] * 3)
        light *= np.float32(1 + self.shoulder) / (flattens + np.float32(self.shoulder))
        return np.minimum(cv2.exp(cv2.log(light) * np.float32(1 / self.power)), 1)  # four times as fast as a power

    def merge(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the radiance, (h, w) or (h, w, 3) BGR float32 in [0, about 1]: every shot, as far as it is trusted.

        A shot counts by its exposure, as its signal over the noise does. The nearer its largest channel is to clipping,
        the less of that head start is left, until darker shots count alone; and values near black count less. A channel
        that is not clipped while others are still counts half as much as the darkest shot, or as the next darker one if
        that shows mere noise there. What all shots clip has the darkest one's white, what all leave black the brightest
        one's black. Nothing is darker than the white of a shot that clips it, or than a quarter of it where the next
        darker shot shows that white well above its noise. Light and colour of nearly black values are mostly noise: the
        darker, the nearer to that white and to gray.

        Args:
            images: all shots that were fitted, in that order, or the same strip of all: (h, w), (h, w, 3) BGR or
                (h, w, 4) with alpha, which is ignored; uint8, uint16 or float32 in [0, 1].
        """
        *sums, doubt = self._sums(images)
        merged = [cv2.max(cv2.divide(total, weight), white) for total, weight, white in zip(*sums, strict=True)]
        if images[0].ndim == 2:
            return merged[0]
        radiance = cv2.merge(merged)
        gray = luma(radiance)
        return cv2.merge([cv2.add(x, cv2.multiply(doubt, cv2.subtract(gray, x))) for x in merged])

    def handover(self, shot: int) -> float:
        """Returns the value in [0, 1] of a shot above which the next brighter one is clipped; 1 for the brightest."""
        _, brighter = self._beside(shot)
        return float(self.render(np.array([2.0 ** self.stops[shot] / brighter], np.float32))[0]) if brighter else 1.0

    def expose(self, images: Sequence[np.ndarray], count: int, radiance: np.ndarray | None = None) -> np.ndarray:
        """Returns what the network sees of a scene: luminance (K, h, w) float32 in [0, 1] of K exposures.

        They are made of the radiance and spread evenly from the darkest shot's to the brightest one's, always as many:
        so nothing jumps when a gap between shots grows, or when there is one shot more.

        Args:
            images: as for `merge`.
            count: K; 0 returns the shots as they are.
            radiance: of these images, from `merge`, where it is known already.
        """
        if not count:
            return np.stack([luma(image) for image in images])
        span, radiance = max(self.stops), self.merge(images) if radiance is None else radiance
        return np.stack([luma(self.render(radiance, 2.0**stop)) for stop in np.linspace(0, span, count)])

    def _sums(self, images: Sequence[np.ndarray]) -> tuple[list, list, list, np.ndarray]:
        """Returns by channel, (h, w) float32, weight times light and the weight, summed over shots; the least light.

        And how doubtful the colour is, (h, w) in [0, 1].
        """
        doubts = np.float32(0)
        total: list = []
        weights: list = []
        least: list = []
        for k, image in enumerate(images):
            image = from_float(image, np.uint16) if image.dtype == np.float32 else image
            planes = cv2.split(image)[:3] if image.ndim == 3 else [image]
            light, black, more, signal, own, clipped, doubtful = self._tables(k, image.dtype)
            most = functools.reduce(cv2.max, planes)
            at_least, beyond, of_shot = cv2.LUT(most, black), cv2.LUT(most, more), np.float32(0)
            for c, plane in enumerate(planes):
                weight = cv2.add(cv2.multiply(beyond, cv2.LUT(plane, signal)), cv2.LUT(plane, own))
                weight = cv2.add(weight, at_least)
                of_shot = of_shot + weight
                part, white = cv2.multiply(weight, cv2.LUT(plane, light[c])), cv2.LUT(plane, clipped[c])
                if k:
                    cv2.max(least[c], white, least[c])
                    cv2.add(total[c], part, total[c])
                    cv2.add(weights[c], weight, weights[c])
                else:
                    total.append(part)
                    weights.append(weight)
                    least.append(white)
            doubts = doubts + of_shot * cv2.LUT(most, doubtful)
        return total, weights, least, cv2.divide(doubts, functools.reduce(cv2.add, weights))

    def _beside(self, shot: int) -> tuple[float, float]:
        """Returns the exposures, over the darkest shot's, of the next darker and the next brighter shot; 0 if none."""
        exposures = [2.0**stops for stops in self.stops]
        own = exposures[shot]
        return max((x for x in exposures if x < own), default=0.0), min((x for x in exposures if x > own), default=0.0)

    @functools.lru_cache(maxsize=64)  # noqa: B019 # tables of a few responses; all strips of a picture need the same
    def _tables(self, shot: int, dtype: DTypeLike) -> tuple[np.ndarray, ...]:
        """Returns for each level of a shot: light (C, levels); least weight as the largest channel; more; as any; own.

        And the least light that there is, (C, levels), 0 for levels that do not clip; and the doubt about the colour.
        """
        value = np.linspace(0, 1, np.iinfo(dtype).max + 1)
        exposure, tint = 2.0 ** self.stops[shot], 2.0 ** np.array(self.tints[shot])
        darker, brighter = self._beside(shot)
        light = self.light(value) / (exposure * tint[:, None])
        signal = _above(value, NOISE)
        doubtful = 1 - _above(value, GRAYED)
        sure = self.light(np.minimum(value, SURE))
        if brighter:  # a nearly black value that is brighter than what clips in that shot may be noise
            light -= doubtful * np.maximum(light - sure.max() / brighter, 0)
        trust = 1 - smoothstep(*CLIPPING, value)
        whole = exposure**trust * trust
        black = BLACK * whole * signal
        noise = 1 - _above(self.render((self.light(value) * darker / exposure).astype(np.float32)), NOISE)
        own = SINGLE * signal * (1 - smoothstep(*OWN_CLIPPING, value)) * max(darker, 1) ** noise
        # where nobody knows: the darkest shot's white, the brightest shot's black
        own += np.where(value > 0.5, 1e-5 * exposure**-2, 1e-8 * exposure)
        seen = self.render(np.array([darker / exposure], np.float32))  # this white in the darker shot
        clipped = smoothstep(*OWN_CLIPPING, value) * sure / (exposure * tint[:, None])
        clipped *= 1 - UNSURE * _above(seen, FAINT)
        return tuple(x.astype(np.float32) for x in (light, black, whole - black, signal, own, clipped, doubtful))


def fit_response(shots: Sequence[np.ndarray], stops: Sequence[float] | None = None) -> Response:
    """Returns the response of two or more shots of a scene, in any order; it costs milliseconds.

    For any curve, the gap between two shots that are neighbours in brightness is a robust mean over their levels, and
    the error is what remains in levels. The curve with the least error is chosen. The fewer levels both shots expose,
    the more the usual curve counts, and the noted gap, or the value at which the brighter shot clips: step by step,
    since a picture must not jump when the gap grows a little.

    Args:
        shots: (H, W) gray, (H, W, 3) BGR or (H, W, 4) BGR with alpha, uint8, uint16 or float32 in [0, 1], of one shape.
        stops: exposure of each shot as the camera noted it, larger is brighter; the pixels win where they disagree.
    """
    smalls = [_small(shot) for shot in shots]
    order = sorted(range(len(shots)), key=lambda k: smalls[k].mean())
    pairs = list(itertools.pairwise(order))
    points = [_Points(smalls[a], smalls[b], stops[b] - stops[a] if stops else None) for a, b in pairs]
    power, shoulder = _minimum(lambda *curves: sum(p.fit(*curves)[0] for p in points))
    exposures, tints = np.zeros(len(shots)), np.zeros((len(shots), smalls[0].shape[2]))
    for (a, b), p in zip(pairs, points, strict=True):
        _, [gap], [tint] = p.fit(np.array([power]), np.array([shoulder]))
        exposures[b], tints[b] = exposures[a] + gap, tints[a] + tint
    exposures, tints = exposures - exposures.min(), tints - tints.mean(0)
    return Response(power, shoulder, tuple(exposures.tolist()), tuple(map(tuple, tints.tolist())))


def _above(value: np.ndarray, half: float) -> np.ndarray:
    """Returns how far values lie above noise, in [0, 1], of their shape: 1/2 at `half`."""
    return value**4 / (value**4 + half**4)


def _minimum(cost) -> tuple[float, float]:
    """Returns the power and shoulder of the least cost: the best of a coarse grid, refined by finer ones around it."""
    powers, shoulders = (np.geomspace(*bounds, 7) for bounds in (POWERS, SHOULDERS))
    for _ in range(6):
        grid = [x.ravel() for x in np.meshgrid(powers, shoulders)]
        usual = [
            (np.log(x / mean) / spread) ** 2
            for x, (mean, spread) in zip(grid, (USUAL_POWER, USUAL_SHOULDER), strict=True)
        ]
        best = np.argmin(cost(*grid) + sum(usual))
        power, shoulder = (float(x[best]) for x in grid)
        powers, shoulders = (
            np.clip(np.geomspace(value * x[0] / x[1], value * x[1] / x[0], 5), *bounds)
            for value, x, bounds in ((power, powers, POWERS), (shoulder, shoulders, SHOULDERS))
        )
    return power, shoulder


def _small(shot: np.ndarray) -> np.ndarray:
    """Returns (h, w, C) uint8 of a picture: every n-th pixel of every n-th row, since mixed ones follow no curve."""
    n = max(1, round((shot.shape[0] * shot.shape[1] / PIXELS) ** 0.5))
    return from_float(to_float(np.atleast_3d(shot[n // 2 :: n, n // 2 :: n])[..., :3]), np.uint8)


class _Points:
    """What the pixels of a darker and a brighter shot, (h, w, C) uint8, tell: values that one light has in both.

    The points are each level of the one shot, and the median of the other where it has this level. So levels count
    alike, however many pixels have them, and what moves or differs in a few pixels does not count. One more point
    tells something also when no level is in both: the dark shot's value where the bright one just clips; as many pixels
    of the one as of the other lie beyond.
    """

    def __init__(self, dark: np.ndarray, bright: np.ndarray, noted: float | None):
        levels = np.arange(256)
        self.channels = []  # of each: values in the dark shot, in the bright one, and their weights, (m,) each
        for a, b in zip(dark.reshape(-1, dark.shape[2]).T, bright.reshape(-1, dark.shape[2]).T, strict=True):
            joint = np.bincount(a * np.int32(256) + b, minlength=1 << 16).reshape(256, 256)
            (of_a, many_a), (of_b, many_b) = _medians(joint), _medians(joint.T)
            one, other, many = np.array([[*levels, *of_b], [*of_a, *levels], [*many_a, *many_b]]) / 255
            exposed = smoothstep(*DARK, np.minimum(one, other)) * (1 - smoothstep(*BRIGHT, np.maximum(one, other)))
            weight = exposed * many / (many + FEW / 255)
            self.channels.append(np.array([one, other, weight], np.float32)[:, weight > 0])
        beyond = max((bright >= round(255 * BRIGHT[1])).mean(), BRIGHTEST)
        border = (np.clip(_quantile(shot, 1 - beyond), NOISE, BRIGHT[1]) for shot in (dark, bright))
        self.border, self.noted = np.array([*border, BORDER], np.float32)[:, None], noted

    def fit(self, power: np.ndarray, shoulder: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (errors, gaps, tints) of n curves: in levels, summed over the levels; in stops; (n, C) in stops."""
        power, shoulder = (x[:, None].astype(np.float32) for x in (power, shoulder))
        parts = [_ratios(x, power, shoulder) for x in (*self.channels, self.border)]
        *points, border = parts
        if self.noted is not None:
            parts.append(np.stack([np.full_like(border[0], x) for x in (self.noted, NOTED_SLOPE, NOTED)]))
        gap = _center(np.concatenate(parts, 2))
        error, tints = _error(border, gap), []
        for part in points:
            tint, many = np.zeros(len(power)), part[2, 0].sum() ** 2
            if len(points) > 1 and many:
                tint = (_center(part) - gap) * (many / (many + 100**2))
                tint *= tint**2 / (tint**2 + TINT**2)
            error += _error(part, gap + tint) / len(points)
            tints.append(tint)
        return error, gap, np.stack(tints, 1)


def _ratios(points: np.ndarray, power: np.ndarray, shoulder: np.ndarray) -> np.ndarray:
    """Returns (3, n, m) of points (3, m) by curves (n, 1): stops between the shots; levels that one shows; weights."""
    (dark, dark_slope), (bright, bright_slope) = (_logarithm(x, power, shoulder) for x in points[:2])
    slope = 255 / np.sqrt(dark_slope**2 + bright_slope**2)
    return np.stack([bright - dark, slope, np.broadcast_to(points[2], dark.shape)])


def _logarithm(values: np.ndarray, power: np.ndarray, shoulder: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns log2 of the light of values by the curve, and its derivative by the value."""
    raised = values**power
    room = 1 + shoulder - raised
    return np.log2(shoulder * raised / room), power * (1 + shoulder) / (np.log(2) * values * room)


def _medians(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the median column (256,) of each row of a histogram (256, 256), interpolated, and the row's count."""
    total = joint.cumsum(1)
    count, rows = total[:, -1], np.arange(256)
    level = (total < count[:, None] / 2).sum(1)
    here = joint[rows, level]
    return level + (count / 2 - total[rows, level] + here) / np.maximum(here, 1) - 0.5, count


def _quantile(shot: np.ndarray, share: float) -> float:
    """Returns the value in [0, 1] below which this share of uint8 values lies, each spread evenly over its level."""
    below = np.bincount(shot.ravel(), minlength=256).cumsum() / shot.size
    return float(np.interp(share, [0, *below], np.arange(257) - 0.5)) / 255


def _center(points: np.ndarray) -> np.ndarray:
    """Returns the robust means (n,) of `_ratios`, those of the least `_error`; they never jump, as medians do."""
    ratio, slope, weight = points
    near = weight * slope**2
    center = (near * ratio).sum(1) / near.sum(1)
    for _ in range(ROUNDS):
        near = weight * slope**2 / np.sqrt(1 + (slope * (ratio - center[:, None])) ** 2)
        center = (near * ratio).sum(1) / near.sum(1)
    return center


def _error(points: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Returns the sums (n,) of how many levels `_ratios` are off: squared below a level, then hardly more than once."""
    ratio, slope, weight = points
    return (weight * (np.sqrt(1 + (slope * (ratio - gap[:, None])) ** 2) - 1)).sum(1)
