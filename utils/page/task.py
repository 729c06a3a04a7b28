"""A scene on the page: how it is fused, how far it is, and what is shown of it."""

import contextlib
import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.errors import Defect, UserError, clear
from utils.fusing.adjust import Adjustment, Look, adjust
from utils.fusing.fusion import Fuser, aligned_shots, improve, own_light, read_exposures
from utils.fusing.hdr import gain_map, light_size, scene_light
from utils.pictures.image import write_image
from utils.pictures.metadata import Metadata
from utils.pictures.pixels import eight_bits, shrink
from utils.pictures.scenes import Scene
from utils.progress import listening
from utils.stack import METHODS

PREVIEW_SIDE = 2400  # pixels, longer side of what is shown before one looks closer
THUMB_SIDE = 320  # pixels, in a list
HDR_SUFFIX = ".hdr.jpg"  # a JPEG that is brighter than white on screens that can
PART_PIXELS = 1 << 25  # of a part at full size: more than any screen shows
COSTS = {"reading": 3, "aligning": 4, "looking for what moved": 4, "blending": 2, "writing": 1}  # shares of the time
DEFECT = "this is a defect of DeepFuse: the console says more"
reading = threading.Lock()  # one stack is read for the view at a time


class Cancelled(Exception):
    """The visitor does not want this picture any more."""


@dataclass(frozen=True)
class Shot:
    """A photograph that was brought."""

    number: int
    path: Path
    label: str  # its name at the visitor's, with folders


@dataclass(frozen=True)
class Options:
    """How a scene is fused."""

    align: str | None = None
    deghost: bool = False
    reference: int | None = None  # number of the shot that shows where moving things stay; None: the best exposed
    weights: str = ""

    def __post_init__(self) -> None:
        if self.align not in (None, *METHODS):
            raise UserError(f"align is {self.align!r}: expected null or one of {', '.join(METHODS)}")


@dataclass(eq=False)
class Task:
    """A scene, its options, and its picture as far as it is made."""

    number: int
    name: str  # of the picture, without suffix
    shots: list[Shot]
    options: Options
    folder: Path  # of the picture and its previews
    look: Look = Look()
    state: str = "waiting"  # then "fusing", then "done", "failed" or "cancelled"
    says: str = ""  # what is being done, or what is wrong
    fraction: float = 0.0
    warnings: list[str] = field(default_factory=list)
    reference: str = ""  # label of the shot that shows what moved
    views: dict[int, str] = field(default_factory=dict)  # exposures to compare with: index -> label
    size: tuple[int, int] = (0, 0)  # width and height of the picture
    revision: int = 0  # grows with whatever changes the picture
    run: object = None  # the fusing that is wanted; one that finds another here ends
    lock: threading.Lock = field(default_factory=threading.Lock)  # for changes of `run` and `state`

    metadata: Metadata = field(default_factory=Metadata)  # of the picture

    @property
    def file(self) -> Path:
        """The picture's pixels: another file for each run, since one that is still read may not go at once."""
        return self.folder / f"fused{id(self.run)}.npy"

    def restart(self, options: Options) -> object:
        """Forgets the picture, and returns the run that shall make it anew with these options."""
        with self.lock:
            self.options, self.run, self.revision = options, object(), self.revision + 1
            self.state, self.says, self.fraction = "waiting", "", 0.0
            self.warnings, self.reference, self.views = [], "", {}
            for path in self.folder.iterdir():
                with contextlib.suppress(OSError):  # Windows keeps what is still read
                    path.unlink()
            return self.run

    def cancel(self) -> None:
        with self.lock:
            if self.state in ("waiting", "fusing"):
                self.run, self.state, self.says = None, "cancelled", ""

    def work(self, run: object, load: Callable[[str], Fuser]) -> None:
        """Makes the picture, unless another run is wanted, and notes how it went; raises only a `Defect`."""
        steps = [what for what in COSTS if what != "aligning" or self.options.align]
        steps = [what for what in steps if what != "looking for what moved" or self.options.deghost]

        def listen(what: str, done: int, of: int) -> None:
            fraction = self.fraction
            if what in steps:
                before = sum(COSTS[one] for one in steps[: steps.index(what)])
                fraction = (before + COSTS[what] * done / of) / sum(COSTS[one] for one in steps)
            counted = f" {done + 1} of {of}" if what in ("reading", "aligning") else ""
            self._note(run, state="fusing", says=f"{what}{counted}", fraction=fraction)

        try:
            with warnings.catch_warnings(record=True) as caught, listening(listen):
                warnings.simplefilter("always")
                listen("reading", 0, len(self.shots))
                made = self._make(load(self.options.weights), listen)
            said = [self.plain(warning.message) for warning in caught]
            self._note(run, state="done", says="", fraction=1.0, warnings=said, revision=self.revision + 1, **made)
        except Cancelled:
            return
        except Exception as error:
            cause = clear(error)
            says = DEFECT if isinstance(cause, Defect) else self.plain(cause)
            with contextlib.suppress(Cancelled):
                self._note(run, state="failed", says=says)
            if isinstance(cause, Defect):
                raise cause from None

    def _note(self, run: object, **changes: Any) -> None:
        """Notes how far a run is; raises `Cancelled` where another one is wanted, or none."""
        with self.lock:
            if self.run is not run:
                raise Cancelled
            for name, value in changes.items():
                setattr(self, name, value)

    def _make(self, fuser: Fuser, listen: Callable[[str, int, int], None]) -> dict[str, Any]:
        """Writes the picture and a preview of each exposure; returns `size`, `metadata`, `reference` and `views`."""
        images, metadata, stops = exposures(tuple(self.shots), self.options.align, self.options.deghost)
        kept = {k: image for k, image in enumerate(images) if image is not None}
        for k, image in kept.items():
            show(shrink(image, side=PREVIEW_SIDE), metadata, self.folder / f"exposure{k}.jpg")
        stack, reference = list(kept.values()), ""
        views = {k: f"exposure {k + 1} of {self.shots[0].label}" for k in kept}  # of a radiance map
        if len(self.shots) > 1:
            views = {k: self.shots[k].label for k in kept}
            chosen = next((shot.path for shot in self.shots if shot.number == self.options.reference), None)
            scene = Scene(self.name, [self.shots[k].path for k in kept], reference=chosen)
            stops = [stops[k] for k in kept] if stops else None
            stack, stops, taken = improve(scene, stack, stops, None, self.options.deghost)
            reference = next((shot.label for shot in self.shots if shot.path == taken), "")
        fused = fuser.fuse(stack, stops)
        listen("writing", 0, 1)
        np.save(self.file, fused)
        if len(self.shots) > 1 and fused.ndim == 3:
            np.save(self.folder / "light.npy", scene_light(stack, stops, light_size(*fused.shape[:2])))  # for HDR
        size = (fused.shape[1], fused.shape[0])
        return {"size": size, "metadata": metadata, "reference": reference, "views": views}

    def plain(self, text: object) -> str:
        """Returns a message in one line, with the visitor's names in the place of this machine's paths."""
        line = " ".join(str(text).split())
        for shot in self.shots:
            for path in (shot.path, shot.path.resolve()):
                line = line.replace(str(path), shot.label)
        return line

    # What is shown

    def preview(self, which: str, small: bool = False) -> Path:
        """Returns the file of a JPEG of at most PREVIEW_SIDE, or THUMB_SIDE: `which` is "fused" or "exposureK"."""
        path = self.folder / f"{which}.jpg"
        if which != "fused":
            return path
        image = adjust(shrink(self._fused(), side=THUMB_SIDE if small else PREVIEW_SIDE), self.look)
        return show(image, self.metadata, self.folder / f"shown{threading.get_ident()}.jpg")

    def part(self, which: str, left: int, top: int, width: int, height: int, shrink: int) -> Path:
        """Returns the file of a PNG with the pixels of a rectangle, shrunk by area where shrink is 2 or more."""
        look, image = self.look, self._fused()
        if which != "fused":
            with reading:
                images, *_ = exposures(tuple(self.shots), self.options.align, self.options.deghost)
            index = int(which.removeprefix("exposure"))
            found = images[index] if index < len(images) else None
            if found is None:
                raise FileNotFoundError(f"{self.name} has no {which}")
            image = found
        inside = 0 <= left < left + width <= image.shape[1] and 0 <= top < top + height <= image.shape[0]
        if not inside or not 1 <= shrink <= 16 or width * height > PART_PIXELS * shrink**2:
            raise UserError(f"{width} x {height} pixels at {left}, {top}: not a part of {self.name}")
        part = image[top : top + height, left : left + width]
        if which == "fused" and look != Look():
            part = Adjustment(image, look).apply(part, top, left)
        size = (max(1, width // shrink), max(1, height // shrink))
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA) if shrink > 1 else part
        return show(part, self.metadata, self.folder / f"shown{threading.get_ident()}.png")

    def save(self, path: Path, quality: int) -> Path:
        """Writes the picture as it looks, in the format of the path's suffix, with metadata; returns `path`.

        A path that ends in HDR_SUFFIX becomes an Ultra HDR JPEG.
        """
        picture, gain = adjust(self._fused(), self.look), None
        if path.name.endswith(HDR_SUFFIX):
            if picture.ndim == 2:
                raise UserError(f"{self.name} is gray: choose another format than HDR")
            stack = len(self.shots) > 1
            bounds = light_size(*picture.shape[:2])
            light = np.load(self.folder / "light.npy") if stack else own_light(self.shots[0].path, bounds)
            gain = gain_map(picture, light)
        write_image(path, picture, self.metadata, quality, gain)
        return path

    def _fused(self) -> np.ndarray:
        """Returns the picture's pixels, which stay on the disk until they are used."""
        if self.state != "done":
            raise FileNotFoundError(f"{self.name} is not fused")
        return np.asarray(np.load(self.file, mmap_mode="r"))


@functools.lru_cache(1)
def exposures(
    shots: tuple[Shot, ...], align: str | None, leave_out: bool
) -> tuple[Sequence[np.ndarray | None], Metadata, list[float] | None]:
    """Returns a scene's exposures as they are fused (see `read_exposures`), before what moved is taken out.

    Those that were asked for last are still there. One that cannot be aligned is None, with a warning.
    """
    images, metadata, stops = read_exposures([shot.path for shot in shots])
    if align and len(shots) > 1:
        images = aligned_shots([shot.path for shot in shots], images, align, leave_out)
    return images, metadata, stops


def show(image: np.ndarray, metadata: Metadata, path: Path) -> Path:
    """Writes a picture to be shown by a browser, of 8 bits, without alpha, with its colour profile; returns `path`."""
    image = image[..., :3] if image.ndim == 3 else image
    write_image(path, eight_bits(image), Metadata(icc=metadata.icc))
    return path
