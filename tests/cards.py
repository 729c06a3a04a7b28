"""Cards as photographers bring them, written with real pixels and EXIF, and the brackets that are on them."""

import functools
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

DATA = Path(__file__).parents[1] / "data_test"
START = datetime(2024, 5, 6, 7, 8, 9)
AEB = (0, -2, 2)


@functools.cache
def light(scene: str) -> np.ndarray:
    """Returns the linear light of a scene of data_test, (H, W, 3) float32 RGB, 1 is white at EV 0."""
    shots = [np.asarray(Image.open(path), np.float32) / 255 for path in sorted((DATA / scene).glob("*.jpg"))]
    dark, middle, bright = (cv2.resize(shot, (512, 163), interpolation=cv2.INTER_AREA) for shot in shots)

    def linear(x):
        return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)

    merged = np.where(middle < 0.9, linear(middle), linear(dark) * 16)
    return np.where(bright < 0.9, linear(bright) / 4, merged).astype(np.float32)


def expose(scene: str, ev: float, view=(0.0, 0.0, 1.0, 0.0), upright=False, thing=None, seed=0) -> np.ndarray:
    """Returns (H, W, 3) uint8 RGB of a scene at an exposure, with a camera's noise.

    Args:
        view: Shift in x and y as shares of the width, zoom, and turn in degrees.
        upright: Whether the camera is held in portrait.
        thing: Place (x, y) of somebody who walks through, as shares of the width and height.
    """
    linear = light(scene)
    height, width = linear.shape[:2]
    if thing:
        linear = linear.copy()
        centre = int(thing[0] * width), int(thing[1] * height)
        cv2.ellipse(linear, centre, (width // 24, height // 6), 0, 0, 360, (0.05, 0.1, 0.3), -1)
        cv2.circle(linear, (centre[0], centre[1] - height // 6), width // 36, (0.5, 0.35, 0.25), -1)
    x, y, zoom, turn = view
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, zoom)
    matrix[:, 2] += x * width, y * width
    linear = cv2.warpAffine(linear, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    if upright:
        linear = linear[:, : height * 2 // 3]
    v = np.clip(linear * 2.0**ev, 0, 1)
    v = np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)
    noise = np.random.default_rng(seed).normal(0, 1.2, v.shape)
    return np.clip(np.rint(255 * v + noise), 0, 255).astype(np.uint8)


class Card:
    """A folder that is filled by a camera; `brackets` are the sets of file names that belong together."""

    def __init__(self, root: Path, folder="DCIM/100NIKON", number=1, name="DSC_{:04}.JPG", **tags):
        self.root, self.folder, self.number, self.name, self.tags = root, folder, number, name, tags
        self.clock, self.brackets, self.shots_per_scene = 0.0, [], None

    def shot(self, scene, ev=0.0, pause=1.0, **options) -> str:
        """Takes a shot `pause` seconds after the start of the last; returns its file's name.

        Args:
            options: mode (EXIF ExposureMode), bias, iso, aperture, base (exposure time at EV 0 in seconds), level (EV
                that is noted, otherwise `ev`), orientation, focal, flash, maker, subsecond, exif (False: none), and
                those of `expose`.
        """
        options = self.tags | options
        get = options.pop
        mode, bias, iso, aperture = get("mode", None), get("bias", None), get("iso", 100), get("aperture", 8.0)
        base, level, orientation, focal = get("base", 1 / 60), get("level", ev), get("orientation", 1), get("focal", 35)
        flash, maker, subsecond, noted = (
            get("flash", 0),
            get("maker", "Acme"),
            get("subsecond", True),
            get("exif", True),
        )
        self.clock += pause
        exif = Image.Exif()
        if noted:
            exif[271], exif[272], exif[274] = maker, "One", orientation
            tags = exif.get_ifd(0x8769)
            moment = START + timedelta(seconds=self.clock)
            tags[33434] = IFDRational(round(base * 2.0**level * aperture**2 / 64 * 100 / iso * 1e6), 10**6)
            tags[33437], tags[34855], tags[37386], tags[37385] = IFDRational(aperture), iso, IFDRational(focal), flash
            tags[36867] = f"{moment:%Y:%m:%d %H:%M:%S}"
            if subsecond:
                tags[37521] = f"{moment.microsecond // 10000:02}"
            if mode is not None:
                tags[0xA402] = mode
            if bias is not None:
                tags[0x9204] = IFDRational(round(bias * 3), 3)
        if self.number > 9999:
            self.number = 1
        path = self.root / self.folder / self.name.format(self.number)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = expose(scene, ev, seed=self.number, **options)
        if orientation == 6:
            pixels = np.rot90(pixels)
        Image.fromarray(pixels).save(path, exif=exif, quality=90)
        self.number += 1
        return path.name

    def bracket(self, scene, evs=AEB, pause=4.0, gap=1.0, marked=None, whole=True, **options) -> list[str]:
        """Takes a bracket; `marked` cameras note the mode and the compensation. `whole`: it shall be found."""
        start = options.pop("ev", 0)
        names = []
        for number, ev in enumerate(evs):
            own = {"mode": 2, "bias": ev} if marked else {}
            moved = {key: value[number] if isinstance(value, list) else value for key, value in options.items()}
            names.append(self.shot(scene, start + ev, gap if number else pause, **own, **moved))
        if whole:
            self.brackets.append(set(names))
        return names


CASES = {}


def case(function):
    """Adds a case, a function that fills a card; its first line is its name."""
    CASES[function.__doc__.strip().splitlines()[0].rstrip(".")] = function
    return function


def make(name: str, root: Path) -> Card:
    """Returns the card of a case, written to `root`."""
    card = Card(root)
    CASES[name](card)
    return card


@case
def _(card):
    """A bracket that the camera marked."""
    card.bracket("courtyard", marked=True)


@case
def _(card):
    """A bracket without any note but the exposures."""
    card.bracket("forest")


@case
def _(card):
    """Three brackets in DCIM/100NIKON."""
    for scene in ("courtyard", "city", "forest"):
        card.bracket(scene, marked=True)


@case
def _(card):
    """90 shots of 30 brackets, unmarked."""
    for number in range(30):
        card.bracket(("courtyard", "city", "forest", "interior", "sunrise", "sunset")[number % 6], ev=number % 5 / 3)


@case
def _(card):
    """90 shots of 30 brackets, all in one second each, pauses of 3 s."""
    for number in range(30):
        scene = ("courtyard", "forest", "interior")[number // 10]  # ten of the same view one after the other
        card.bracket(scene, pause=3, gap=0.2, ev=number % 4 / 3, marked=True)


@case
def _(card):
    """Four unrelated singles, metered, 4 s apart."""
    for number, scene in enumerate(("courtyard", "city", "forest", "sunset")):
        card.shot(scene, pause=4, mode=0, bias=0, level=-1.3 * number)


@case
def _(card):
    """Four unrelated singles without any note but the exposures, 1 s apart."""
    for number, scene in enumerate(("courtyard", "city", "forest", "sunset")):
        card.shot(scene, level=-number)


@case
def _(card):
    """A bracket and a single of something else 5 s later, unmarked."""
    card.bracket("courtyard")
    card.shot("forest", pause=5, level=1)


@case
def _(card):
    """A bracket and a single of something else 5 s later, marked."""
    card.bracket("city", marked=True)
    card.shot("sunrise", pause=5, level=1, mode=0, bias=0)


@case
def _(card):
    """A single, then a bracket of something else, unmarked."""
    card.shot("forest", level=0.7)
    card.bracket("courtyard", pause=2)


@case
def _(card):
    """A landscape bracket and a portrait one 4 s later, by the size."""
    card.bracket("courtyard")
    card.bracket("courtyard", upright=True, ev=0.7)


@case
def _(card):
    """A landscape bracket and a portrait one 4 s later, by the orientation."""
    card.bracket("forest")
    card.bracket("forest", orientation=6, ev=0.7)


@case
def _(card):
    """Two brackets of two views 2 s apart, other exposures, all the same size, unmarked."""
    card.bracket("courtyard", pause=2)
    card.bracket("forest", pause=2, ev=0.7)


@case
def _(card):
    """An ISO bracket: 1/50 s at 640, 250, 125."""
    card.brackets.append(
        {
            card.shot("interior", ev, iso=iso, level=ev, base=1 / 320)
            for ev, iso in ((0, 640), (-1.36, 250), (-2.36, 125))
        }
    )


@case
def _(card):
    """A bracket by the aperture."""
    card.brackets.append({card.shot("courtyard", ev, aperture=8 * 2 ** (-ev / 2)) for ev in (-2, 0, 2)})


@case
def _(card):
    """Raw and JPEG of each shot in one folder."""
    for name in card.bracket("courtyard", marked=True) + card.bracket("city", marked=True):
        (card.root / card.folder / name).with_suffix(".NEF").write_bytes(b"II*\0")


@case
def _(card):
    """Two formats of each shot in one folder, as a phone writes HEIC and JPEG."""
    for name in card.bracket("courtyard"):
        path = card.root / card.folder / name
        with Image.open(path) as picture:
            picture.save(path.with_suffix(".webp"), exif=picture.getexif(), quality=90)
    card.brackets = [{name.replace(".JPG", ".webp") for name in group} | group for group in card.brackets]


@case
def _(card):
    """The same shots in two folders."""
    card.bracket("courtyard")
    shutil.copytree(card.root / card.folder, card.root / "backup")


@case
def _(card):
    """Numbers that wrap inside a bracket, within one second that the camera does not divide."""
    card.number = 9998
    card.bracket("courtyard", (0, -2, 2, -3), gap=0.1, subsecond=False)


@case
def _(card):
    """Numbers that wrap inside a bracket, and the folder with them."""
    card.number = 9998
    names = [card.shot("city", 0, mode=2, bias=0), card.shot("city", -2, mode=2, bias=-2)]
    card.folder = "DCIM/101NIKON"
    card.brackets.append({*names, card.shot("city", 2, mode=2, bias=2)})
    card.bracket("forest", marked=True)


@case
def _(card):
    """A burst of twelve, one exposure."""
    for number in range(12):
        card.shot("courtyard", 0, 0.1, view=(0.02 * number, 0, 1, 0), mode=0, bias=0)


@case
def _(card):
    """A burst whose metering drifts while it pans."""
    for number in range(12):
        drift = (0, 0, 1, 1, 2, 3, 4, 4, 3, 2, 2, 1)[number] / 3
        card.shot("courtyard", drift, 0.1, view=(0.03 * number, 0, 1, 0), mode=0, bias=0)


@case
def _(card):
    """A burst whose metering follows a light that is switched on, without notes."""
    for number in range(6):
        card.shot("interior", 0, 0.1, level=-number)


@case
def _(card):
    """Brackets as bursts, three shots in half a second, hundredths noted."""
    for scene in ("courtyard", "city", "forest"):
        card.bracket(scene, gap=0.16, pause=1)


@case
def _(card):
    """A bracket within a second that the camera does not divide."""
    card.bracket("sunrise", gap=0.2, subsecond=False)
    card.bracket("city", gap=0.2, subsecond=False)


@case
def _(card):
    """Five, seven and nine shots, a stop apart."""
    card.bracket("courtyard", (0, -1, 1, -2, 2), marked=True)
    card.bracket("forest", (-3, -2, -1, 0, 1, 2, 3))
    card.bracket("city", (0, -1, 1, -2, 2, -3, 3, -4, 4), marked=True)


@case
def _(card):
    """The same bracket twice on a tripod, one after the other."""
    card.bracket("courtyard", pause=1)
    card.bracket("courtyard", pause=1)


@case
def _(card):
    """The same view twice, metered anew, marked."""
    card.bracket("courtyard", pause=1, marked=True)
    card.bracket("courtyard", pause=1, marked=True, ev=0.7)


@case
def _(card):
    """The same view twice, metered anew, unmarked, 5 s apart."""
    card.bracket("courtyard", (-2, 0, 2))
    card.bracket("courtyard", (-2, 0, 2), pause=6, ev=0.7)


@case
def _(card):
    """The same view twice, metered anew, unmarked, no pause."""
    card.bracket("forest", pause=1)
    card.bracket("forest", pause=1, ev=0.7)


@case
def _(card):
    """A bracket, then a single of the same view and exposure."""
    card.bracket("courtyard")
    card.shot("courtyard", 0)


@case
def _(card):
    """A bracket, then a single of the same view 6 s later, another exposure, unmarked."""
    card.bracket("courtyard")
    card.shot("courtyard", 0.7, pause=6)


@case
def _(card):
    """A trial shot, then a bracket of the same view, compensations noted."""
    card.shot("city", 0.5, mode=0, bias=0)
    card.bracket("city", marked=True, pause=2)


@case
def _(card):
    """A trial shot, then a bracket of the same view, of a camera that notes compensations but no modes."""
    card.shot("city", 0.5, bias=0)
    card.brackets.append({card.shot("city", ev, bias=ev) for ev in (0, -2, 2)})


@case
def _(card):
    """A metered series of a sunset, every 5 s a third of a stop longer."""
    for number in range(10):
        card.shot("sunset", 0, pause=5, level=number / 3, mode=0, bias=0)


@case
def _(card):
    """A series of brackets on a tripod, one every 20 s, metered anew."""
    for number in range(8):
        card.bracket("sunset", pause=20, ev=number / 4, marked=True)


@case
def _(card):
    """A bracket set by hand, up to 40 s between the shots."""
    card.brackets.append(
        {card.shot("interior", ev, pause, mode=1) for ev, pause in ((2, 30), (1, 12), (0, 40), (-2, 19))}
    )


@case
def _(card):
    """A bracket in its own folder, up to 50 s between the shots, no modes noted."""
    card.folder = "church"
    card.brackets.append({card.shot("interior", ev, pause) for ev, pause in ((2, 30), (0, 12), (-2, 50))})


@case
def _(card):
    """The same up to 50 s between the shots, on a card among others: in doubt apart."""
    card.bracket("courtyard")
    for ev, pause in ((2, 30), (0, 12), (-2, 50)):
        card.shot("interior", ev, pause)


@case
def _(card):
    """Folders of scenes inside folders, two of them with two brackets."""
    for folder, scenes in (("trip/day 1/a", ("courtyard", "city")), ("trip/b", ("forest", "city")), ("c", ("sunset",))):
        card.folder = folder
        for scene in scenes:
            card.bracket(scene)


@case
def _(card):
    """Folders without EXIF, one scene each."""
    for card.folder, scene in (("a", "courtyard"), ("b", "forest"), ("c/d", "sunrise")):
        card.bracket(scene, exif=False)


@case
def _(card):
    """A folder without EXIF of unrelated pictures."""
    card.folder = "pictures"
    for scene in ("courtyard", "city", "forest", "interior"):
        card.shot(scene, exif=False)


@case
def _(card):
    """A folder without EXIF of two brackets: in doubt apart."""
    card.folder = "pictures"
    card.bracket("courtyard", exif=False, whole=False)
    card.bracket("forest", exif=False, whole=False)


@case
def _(card):
    """Without EXIF, three shots per scene are asked for."""
    card.shots_per_scene = 3
    for scene in ("courtyard", "city", "forest", "interior"):
        card.bracket(scene, exif=False)


@case
def _(card):
    """Without EXIF, three shots per scene are asked for, and one shot is missing."""
    card.shots_per_scene = 3
    card.bracket("courtyard", exif=False)
    card.bracket("city", (0, -2), exif=False, whole=False)
    card.bracket("forest", exif=False)


@case
def _(card):
    """Brackets out of the hand: shifted by up to 3 % and turned by up to 1.5 degrees."""
    for scene in ("courtyard", "city", "forest", "interior"):
        card.bracket(scene, view=[(0, 0, 1, 0), (0.03, -0.01, 1, 1.5), (-0.02, 0.02, 1.01, -1)])


@case
def _(card):
    """Two singles of one view with different zoom, and one with the flash."""
    card.shot("courtyard", 0)
    card.shot("courtyard", 1, view=(0, 0, 1.1, 0), focal=39)
    card.shot("courtyard", 2, flash=1)


@case
def _(card):
    """Two cameras' brackets on one card, at the same time."""
    mine, yours = [], []
    for ev in AEB:
        mine.append(card.shot("courtyard", ev, 0.5, maker="Acme"))
        yours.append(card.shot("forest", ev, 0.5, maker="Other"))
    card.brackets += [set(mine), set(yours)]


@case
def _(card):
    """A bracket with the picture that was fused of it, and an edited shot."""
    names = card.bracket("courtyard")
    for name, new in ((names[0], "_fused.jpg"), (names[1], " (edit).JPG")):
        path = card.root / card.folder / name
        shutil.copy(path, path.with_name(path.stem + new))


@case
def _(card):
    """Two metered singles of one view, one of them brighter: in doubt apart."""
    card.shot("courtyard", 0, mode=0, bias=0)
    card.shot("courtyard", 1.3, mode=0, bias=0, pause=3)


@case
def _(card):
    """Somebody walks through the bracket."""
    card.bracket("courtyard", thing=[(0.2, 0.6), (0.5, 0.6), (0.8, 0.65)])
    card.bracket("forest", thing=[(0.3, 0.5), (0.4, 0.5), (0.5, 0.5)], marked=True)


@case
def _(card):
    """A shot of a bracket is nearly black."""
    card.bracket("interior", (0, -6, 2), marked=True)
    card.bracket("city", (0, -3, -6))


@case
def _(card):
    """Two shots only: by the compensation, and by hand."""
    card.bracket("city", (-2, 2), marked=True)
    card.brackets.append({card.shot("forest", ev, mode=1) for ev in (-1, 2)})


@case
def _(card):
    """A shot of the bracket cannot be read: it must not be fused without."""
    names = card.bracket("courtyard", marked=True, whole=False)
    (card.root / card.folder / names[2]).write_text("words")
    card.bracket("forest", marked=True)


@case
def _(card):
    """The middle shot of the only bracket cannot be read."""
    names = card.bracket("courtyard", (0, -2, 2, -3), whole=False)
    (card.root / card.folder / names[1]).write_text("words")


@case
def _(card):
    """The EXIF of the third shot is lost."""
    names = [card.shot("courtyard", ev) for ev in (0, -2)]
    card.brackets.append({*names, card.shot("courtyard", 2, exif=False)})
    card.bracket("forest")


@case
def _(card):
    """A night's bracket: 2, 8 and 30 s, each followed by the camera's dark frame."""
    names, last = [], 0.0
    for ev in (0, 2, 4):
        names.append(card.shot("city", ev - 3, 2 * last + 1, base=2, level=ev))
        last = 2 * 2.0**ev
    card.brackets.append(set(names))


@case
def _(card):
    """A bracket, then the same subject moved in the frame, another exposure, unmarked."""
    card.bracket("courtyard")
    card.bracket("courtyard", pause=5, ev=0.7, view=(0.3, 0, 1, 0))


@case
def _(card):
    """A phone's shots, by its own names, with the brightness set by hand."""
    card.folder, card.name = "DCIM/Camera", "PXL_20240506_0708{:05}.jpg"
    for scene in ("courtyard", "forest"):
        card.bracket(scene, (0, -2, 2), gap=3, mode=1, bias=0)


@case
def _(card):
    """A phone's shots, the exposure compensation dragged."""
    card.folder, card.name = "100APPLE", "IMG_{:04}.jpg"
    card.brackets.append({card.shot("sunrise", ev, 4, bias=ev, mode=0) for ev in (0, -1.7, 1.7)})


@case
def _(card):
    """A phone's shots in their own folder, a minute apart, set by hand, with little that two of them show."""
    card.folder = "phone"
    card.bracket("city", (0, -3.5, -7), gap=60, mode=1)


@case
def _(card):
    """The same, but one of the three is of another view."""
    card.folder = "phone"
    card.bracket("interior", (3.5, 0), gap=60, mode=1)
    card.shot("courtyard", -3.5, 60, mode=1)


@case
def _(card):
    """Hidden folders and a server's previews."""
    card.bracket("courtyard")
    for folder in (".Trashes", "@eaDir"):
        shutil.copytree(card.root / card.folder, card.root / folder / "100NIKON")
