"""Which photographs are one bracket, by what the camera noted and by what the pictures show.

The rules work on `Shot`s and on a function that compares two of them; `scenes` applies them to folders. Wherever the
rules do not decide, the shots stay apart, and a note says why.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

from utils.pictures.image import read_image
from utils.pictures.metadata import EXIF, EXPOSURE_TIME, F_NUMBER, MAIN, SENSITIVITY, Metadata
from utils.pictures.pixels import shrink, to_float

CAMERA = (MAIN, 271), (MAIN, 272), (EXIF, 0xA431), (EXIF, 0xA434)  # make, model, serial number, lens
KIND = *["camera"] * 3, "lens", "focal length", "flash", "size", "orientation", "note of aperture", "note of ISO"
FOCAL, FLASH, BIAS, EXPOSURE_MODE, PROGRAM = 0x920A, 0x9209, 0x9204, 0xA402, 0x8822  # tags of EXIF
PAUSE = 10  # seconds between the end of a shot and the start of the next in a bracket that is taken without a break
LONG_PAUSE = 120  # the same where the photographer sets each exposure by hand
LONGER = 3  # times: a pause that much longer than those inside a bracket may be one between brackets
SAME_STOPS = 0.2  # exposures nearer than this are equal; nominal times such as 1/125 are up to 0.06 stops off
EVEN_STOPS = 0.3  # tolerance of equal steps; cameras step by whole thirds
SMALL_STEP, METERED_STEP = 0.45, 0.6  # stops, least step of a bracket that the camera did not mark: metering drifts
FOLLOWS = 0.3  # least share of the exposures' difference that pixels must show; a metered shot of new light shows none

LOOK_SIDE = 160  # pixels, longer side of the copies that are compared
EXPOSED = 6, 250  # levels between which a pixel shows something
DETAIL, FAINT = 3, 0.3  # pixels, sigma of what is flattened; stops of contrast below which detail counts less
FARTHEST = 0.1  # of the longer side, how far hand-held shots may be apart
GAMMA = 2.2  # approximates the cameras' tone curve
# Correlation and share of comparable pixels, by 737 shots of 107 scenes: neighbours of a scene reach .45 (2 of 580 do
# not), shots of different scenes .37 where a twentieth of the pixels compares, .33 where a tenth does.
ALIKE, ALIKE_SHARE, UNLIKE, UNLIKE_SHARE = 0.42, 0.05, 0.33, 0.1
MOST_SHOTS = 20  # of a scene without EXIF
FAR_STOPS = 4  # between exposures that show too little in common to say that they show different things
LIT_ALIKE = 0.8  # correlation of the light, clipped as in the brighter one: 1.2 % of shots of different scenes reach it
FEWEST = 1000  # pixels that must compare: fewer agree by chance


@dataclass(frozen=True)
class Shot:
    """What a camera noted of a photograph."""

    path: Path
    captured: float  # seconds
    time: float = 0.01  # exposure time in seconds
    level: float = 0.0  # exposure in stops, of time, aperture and ISO as far as they are known
    size: tuple[int, int] = (0, 0)  # width and height, as stored
    kind: tuple = ()  # what all shots of a bracket share: camera, lens, size, orientation ...
    marked: bool = False  # the camera says that it belongs to an automatic bracket
    manual: bool = False  # the camera says that the exposure was set by hand
    bias: float | None = None  # exposure compensation in stops, as it was set


Compare = Callable[[Shot, Shot], bool | None]  # whether two shots show the same; None: the pictures cannot tell


def read_shot(path: Path, metadata: Metadata) -> Shot:
    """Returns what a photograph's EXIF says; its time and level are NaN without capture time or exposure time."""
    captured = _seconds(metadata.captured)
    time, aperture, iso = map(metadata.above_0, (EXPOSURE_TIME, F_NUMBER, SENSITIVITY))
    camera = [str(metadata.tag(*key)).strip(" \0") for key in CAMERA]
    focal, flash = round(metadata.number(FOCAL) or 0), int(metadata.number(FLASH) or 0) & 1  # whether it fired
    known = (bool(aperture), bool(iso))  # exposures compare only where the same is known
    kind = (*camera, focal, flash, metadata.size, metadata.orientation, *known)
    if captured is None or time is None:
        return Shot(path, math.nan, level=math.nan, size=metadata.size, kind=kind)
    level = math.log2(time) - 2 * math.log2(aperture or 1) + math.log2(iso or 1)
    mode = metadata.tag(EXIF, EXPOSURE_MODE)
    manual = mode == 1 or metadata.tag(EXIF, PROGRAM) == 1
    return Shot(path, captured, time, level, metadata.size, kind, mode == 2, manual, metadata.number(BIAS))


def _seconds(captured: str | None) -> float | None:
    """Returns EXIF's "YYYY:MM:DD HH:MM:SS.sss" in seconds; None where it is absent or not of this form."""
    whole, _, fraction = (captured or "").partition(".")
    try:
        return datetime.strptime(whole, "%Y:%m:%d %H:%M:%S").timestamp() + float(f"0.{fraction}")
    except ValueError:
        return None


def by_name(path: Path) -> list:
    """Returns a key that sorts names as people do: shot 9 before shot 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", str(path).casefold())]


def in_order(shots: Sequence[Shot]) -> list[Shot]:
    """Returns shots by camera, time and the number in the file's name, which begins anew after 9999."""
    ordered = []
    for _, same in itertools.groupby(sorted(shots, key=_moment), key=_moment):
        numbered = [(int(("0" + re.sub(r".*?(\d*)\D*$", r"\1", shot.path.stem))[-9:]), shot) for shot in same]
        most = max(number for number, _ in numbered)
        numbered = [(number + 10000 * (most - number > 5000), shot) for number, shot in numbered]
        ordered += [shot for _, shot in sorted(numbered, key=lambda one: (one[0], one[1].path))]
    return ordered


def _moment(shot: Shot) -> tuple:
    return shot.kind[:4], shot.captured


def find_brackets(shots: Sequence[Shot], compare: Compare, patient: bool = False) -> tuple[list[list[Shot]], list[str]]:
    """Returns (groups, notes): each shot is in one group, a bracket or alone; the notes say what may be doubted.

    Args:
        shots: In any order.
        compare: Whether two shots show the same, such as `same_view`.
        patient: Whether pauses between shots mean nothing.
    """
    groups, notes, ordered = [], [], in_order(shots)
    alone: dict[str, list[str]] = {}  # by the reason
    for run in _runs(ordered, patient):
        for view in _views(run, compare):
            for group in _rounds(view):
                doubt, note = _judge(group, compare, patient)
                groups += [[shot] for shot in group] if doubt else [group]
                names = ", ".join(shot.path.name for shot in group)
                notes += [f"kept apart: {names}: {doubt}"] if doubt else [f"{names}: {note}"] if note else []
                if len(group) == 1:
                    alone.setdefault(_why_alone(group[0], ordered, compare, patient), []).append(names)
    return groups, notes + [f"kept apart: {', '.join(names)}: {why}" for why, names in alone.items()]


def _why_alone(shot: Shot, ordered: Sequence[Shot], compare: Compare, patient: bool) -> str:
    """Returns why no bracket goes from the shot before to this one, nor from it to the shot after."""
    place, beside = ordered.index(shot), {}
    for a, b in itertools.pairwise(ordered[max(place - 1, 0) : place + 2]):
        why = _parted([a], b, patient)
        if not why:
            why = "a shot of another view" if compare(a, b) is False else "a bracket that it does not continue"
        beside[why] = None
    return f"next to it is only {' and '.join(beside)}" if beside else "there is no other shot beside it"


def _parted(run: Sequence[Shot], shot: Shot, patient: bool) -> str:
    """Returns what a shot is that a bracket cannot go on with after the shots of a run, or "" if it can."""
    last = run[-1]
    if others := [name for name, a, b in zip(KIND, last.kind, shot.kind, strict=False) if a != b]:
        return f"a shot of another {' and '.join(dict.fromkeys(others))}"
    if last.marked != shot.marked:
        return "a shot of another exposure mode"
    if not (patient or _pause(last, shot) <= LONG_PAUSE):  # this way round: NaN is no known pause, no other exposure
        return f"a shot more than {LONG_PAUSE} s away"
    return "" if all(abs(shot.level - one.level) > SAME_STOPS for one in run) else "a shot of the same exposure"


def one_view(shots: Sequence[Shot], compare: Compare, name: str) -> tuple[list[list[Shot]], list[str]]:
    """Returns (groups, notes) of a folder `name` without EXIF, as `find_brackets`: one, unless its pictures differ."""
    shots = sorted(shots, key=lambda shot: by_name(shot.path))
    if len(shots) == 1:
        return [shots], [f"kept apart: {shots[0].path}: there is no other shot beside it"]
    if len(shots) <= MOST_SHOTS and len(_views(shots, compare)) < 2:
        return [shots], []
    return [[shot] for shot in shots], [
        f"kept apart: {name}: {len(shots)} pictures without EXIF capture times, which show different things: "
        "make one sub-folder per scene, or say with --shots how many each scene has"
    ]


def find_rounds(shots: Sequence[Shot], compare: Compare, size: int) -> tuple[list[list[Shot]], list[str]]:
    """Returns (groups, notes), as `find_brackets`, where all scenes have `size` shots, in order of time or names.

    Shots that show other things than the next ones are alone.
    """
    dated = not any(math.isnan(shot.captured) for shot in shots)
    shots = in_order(shots) if dated else sorted(shots, key=lambda shot: by_name(shot.path))
    groups, notes, start = [], [], 0
    while start < len(shots):
        group = shots[start : start + size]
        if len(group) < size or len(_views(group, compare)) > 1:
            group = group[:1]
            notes.append(f"kept apart: {group[0].path.name}: the next {size - 1} shots do not show the same")
        groups.append(group)
        start += len(group)
    return groups, notes


def _runs(shots: Sequence[Shot], patient: bool) -> list[list[Shot]]:
    """Returns shots in order, split wherever no bracket can go on: other settings, an exposure again, a long pause."""
    runs: list[list[Shot]] = []
    for shot in shots:
        if runs and not _parted(runs[-1], shot, patient):
            runs[-1].append(shot)
        else:
            runs.append([shot])
    return [part for run in runs for part in _by_bias(run)]


def _pause(last: Shot, shot: Shot) -> float:
    """Returns the seconds between two shots; after a long exposure the camera may take as long again for the noise."""
    pause = shot.captured - last.captured - last.time
    return pause - last.time if pause > last.time > 1 else pause


def _by_bias(run: list[Shot]) -> list[list[Shot]]:
    """Returns a run, split where a compensation comes again, if the run has several."""
    if len({shot.bias for shot in run}) == 1 or any(shot.bias is None for shot in run):
        return [run]
    parts: list[list[Shot]] = [[]]
    for shot in run:
        if shot.bias in [one.bias for one in parts[-1]]:
            parts.append([])
        parts[-1].append(shot)
    return parts


def _views(run: list[Shot], compare: Compare) -> list[list[Shot]]:
    """Returns a run, split where no shot before shows the same as any shot after, and some show something else."""
    for cut in range(1, len(run)):
        seen = {compare(a, b) for a in run[:cut] for b in run[cut:]}
        if False in seen and True not in seen:
            return [*_views(run[:cut], compare), *_views(run[cut:], compare)]
    return [run]


def _rounds(view: list[Shot]) -> list[list[Shot]]:
    """Returns shots of one view, split at the longest pause if they then are brackets, but together are none.

    That is: their exposures are not even, the pause is LONGER than all others, and one part is even, of three or more
    shots, or both parts have the same steps; or, whatever the pauses, the same steps come again in the same order.
    Shots of several compensations need no such guess.
    """
    if len(view) < 3 or len({shot.bias for shot in view}) > 1 or _even(view):
        return [view]
    steps = np.diff([shot.level for shot in view])
    for size in range(3, len(view) // 2 + 1):
        if len(view) % size == 0:
            rounds = np.append(steps, 0).reshape(-1, size)[:, :-1]
            if np.ptp(rounds, axis=0).max() < EVEN_STOPS:
                return [view[start : start + size] for start in range(0, len(view), size)]
    pauses = [max(_pause(a, b), 1) for a, b in itertools.pairwise(view)]
    cut = int(np.argmax(pauses)) + 1
    longest = pauses.pop(cut - 1)
    parts = view[:cut], view[cut:]
    if longest < LONGER * max(pauses) or not (any(_even(part) for part in parts) or _alike(*parts)):
        return [view]
    return [*_rounds(parts[0]), *_rounds(parts[1])]


def _steps(shots: Sequence[Shot]) -> np.ndarray:
    return np.diff(sorted(shot.level for shot in shots))


def _even(shots: Sequence[Shot]) -> bool:
    """Returns whether these are three or more exposures with equal steps."""
    return len(shots) > 2 and bool(np.ptp(_steps(shots)) < EVEN_STOPS)


def _alike(some: Sequence[Shot], others: Sequence[Shot]) -> bool:
    """Returns whether two groups of two or more have the same steps between their exposures, and some in common."""
    ends = [(min(shot.level for shot in group), max(shot.level for shot in group)) for group in (some, others)]
    if len(some) != len(others) or len(some) < 2 or max(low for low, _ in ends) > min(high for _, high in ends):
        return False
    return bool(np.abs(_steps(some) - _steps(others)).max() < EVEN_STOPS)


def _judge(group: list[Shot], compare: Compare, patient: bool) -> tuple[str, str]:
    """Returns (doubt, note): why a group is no bracket or "", and what a person may doubt in a bracket or ""."""
    if len(group) < 2:
        return "", ""
    biases = [shot.bias for shot in group if shot.bias is not None]
    noted = len(biases) == len(group)
    drift = np.diff(biases) - np.diff([shot.level for shot in group]) if noted else math.inf
    told = noted and len(set(biases)) == len(group) and bool(np.abs(drift).max() < METERED_STEP)
    meant = group[0].marked or told  # by the camera's own account
    metered = noted and not meant and not any(shot.manual for shot in group)
    step = _steps(group).min()
    if not meant and step < SMALL_STEP:
        return f"the exposures differ by {step:.1f} stops only", ""
    if metered and not (_even(group) and step > METERED_STEP):
        return "the camera metered each shot anew, so they may be singles", ""
    pause = max(_pause(a, b) for a, b in itertools.pairwise(group))
    if pause > PAUSE and not (patient or meant or any(shot.manual for shot in group)):
        return f"one view and several exposures, but a pause of {pause:.0f} s", ""
    if not _connected(group, compare):
        if not (patient or meant or _even(group)):
            return "too dark or too bright to see whether they show the same", ""
        return "", "too dark or too bright to compare in part, but the exposures fit"
    return "", f"one scene in spite of a pause of {pause:.0f} s" if pause > PAUSE else ""


def _connected(group: list[Shot], compare: Compare) -> bool:
    """Returns whether each shot of a group shows the same as another one, and so do all together."""
    reached, rest = group[:1], group[1:]
    while rest:
        found = [shot for shot in rest if any(compare(shot, one) for one in reached)]
        if not found:
            return False
        reached, rest = reached + found, [shot for shot in rest if shot not in found]
    return True


@dataclass(frozen=True)
class View:
    """A small copy of a picture to compare: its flattened detail, where it is exposed, and its light, all (h, w)."""

    detail: np.ndarray
    exposed: np.ndarray
    light: np.ndarray  # stops below white


def view_of(image: np.ndarray) -> View:
    """Returns the view of a picture (H, W, 3) BGR, uint8 or uint16."""
    small = 255 * shrink(to_float(image), side=LOOK_SIDE)
    gray = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    exposed = cv2.erode(((small.max(2) < EXPOSED[1]) & (gray > EXPOSED[0])).astype(np.float32), np.ones((3, 3)))
    light = GAMMA * np.log2(np.maximum(gray, 1) / 255)

    def around(values: np.ndarray) -> np.ndarray:
        """Returns the mean of the exposed pixels around each."""
        blurred, share = (cv2.GaussianBlur(x, (0, 0), DETAIL) for x in (values * exposed, exposed))
        return blurred / np.maximum(share, 1e-3)

    detail = exposed * (light - around(light))
    return View(detail / (np.sqrt(around(detail**2)) + FAINT), exposed, light)


def same_view(a: View, b: View, stops: float | None = None) -> bool | None:
    """Returns whether two pictures show the same, one perhaps shifted and exposed otherwise; None if they cannot tell.

    Their detail is correlated at every shift up to FARTHEST, over the pixels that are exposed in both.

    Args:
        stops: By how many stops b was exposed longer, if known: then its pixels must be brighter.
    """
    if a.light.shape != b.light.shape:
        return False
    height, width = a.light.shape
    farthest = round(FARTHEST * max(height, width))
    shifts = np.arange(-farthest, farthest + 1)

    def transform(values: np.ndarray) -> np.ndarray:
        return np.fft.rfft2(values, (height + farthest, width + farthest))

    def correlated(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns the sums of products at all shifts, from transforms."""
        sums = np.fft.irfft2(x * np.conj(y), (height + farthest, width + farthest))
        return sums[np.ix_(shifts, shifts)]

    ones = [transform(view.exposed) for view in (a, b)]
    squares = [transform(view.detail**2) for view in (a, b)]
    number = correlated(*ones)
    power = correlated(squares[0], ones[1]) * correlated(ones[0], squares[1])
    match = correlated(transform(a.detail), transform(b.detail)) / np.sqrt(np.maximum(power, 1e-6))
    match[number < max(FEWEST, ALIKE_SHARE * height * width)] = -1
    y, x = np.unravel_index(match.argmax(), match.shape)
    best, share = match[y, x], number[y, x] / (height * width)
    if best < ALIKE or share < ALIKE_SHARE:
        differ = -1 < best < UNLIKE and share > UNLIKE_SHARE
        return False if differ and not (stops and (abs(stops) > FAR_STOPS or _lit_alike(a, b, stops))) else None
    if stops is not None and abs(stops) > SMALL_STEP:
        dy, dx = shifts[y], shifts[x]
        here = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
        there = slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0))
        both = (a.exposed[here] * b.exposed[there]) > 0
        return bool(np.median((b.light[there] - a.light[here])[both]) / stops > FOLLOWS)
    return True


def _lit_alike(a: View, b: View, stops: float) -> bool:
    """Returns whether the darker of two views, exposed by the stops more, is bright where the brighter one is."""
    dark, bright = (cv2.GaussianBlur(view.light, (0, 0), DETAIL) for view in ((a, b) if stops > 0 else (b, a)))
    dark = np.minimum(dark + abs(stops), 0)
    return dark.std() > 0 < bright.std() and np.corrcoef(dark.ravel(), bright.ravel())[0, 1] > LIT_ALIKE


def comparer() -> Compare:
    """Returns what compares shots by their pictures; each is read once, and one that cannot be read cannot tell."""

    @functools.cache
    def view(shot: Shot) -> View | None:
        reduction = next((n for n in (8, 4, 2) if max(shot.size) >= n * LOOK_SIDE), 1)
        try:
            return view_of(read_image(shot.path, shrink=reduction))
        except (OSError, ValueError):
            return None

    @functools.cache
    def same(a: Shot, b: Shot) -> bool | None:
        one, other = view(a), view(b)
        return same_view(one, other, b.level - a.level) if one and other else None

    return lambda a, b: same(a, b) if a.path < b.path else same(b, a)
