"""Scenes: which photographs belong together, found in a folder or read from a table of pairs."""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from utils.errors import UserError
from utils.files import read_table
from utils.pictures.image import IMAGE_SUFFIXES, RADIANCE_SUFFIXES, WRITTEN_SUFFIXES, list_images
from utils.pictures.metadata import read_metadata

MAX_PAUSE = 10  # seconds between the end of one shot and the start of the next of its bracket


@dataclass(frozen=True)
class Scene:
    """The exposures to fuse, and what is wanted of them."""

    name: str
    paths: Sequence[Path]
    stack: Sequence[Path] = ()  # all shots of the scene, `paths` among them, to judge the picture by
    out: Path = Path()  # the picture to write
    metadata_from: str | os.PathLike | None = None  # whose EXIF and colour profile `out` gets; None: the first's
    reference: str | os.PathLike | None = None  # of `paths`: shows moving things as they shall be; None: best exposed


def find_scenes(folder: str | os.PathLike) -> tuple[list[Scene], list[Path]]:
    """Returns the scenes in a folder, and the pictures that belong to none.

    A folder of subfolders: each subfolder with pictures is a scene of that name, sorted by name. A folder of pictures:
    `split_brackets` groups them, and a scene has its first shot's name with "_fused"; a photograph without `capture`
    belongs to none. Each radiance map is a scene of its own; so is each file that cannot be read, which gets its error
    later, when the scene is read.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There are no pictures, both pictures and subfolders with pictures, or none with EXIF to group it by.
    """
    folder = Path(folder)
    flat = list_images(folder, suffixes=(*IMAGE_SUFFIXES, *RADIANCE_SUFFIXES))
    inner = {sub: list_images(sub) for sub in sorted(folder.iterdir()) if sub.is_dir()}
    scenes = [Scene(sub.name, paths) for sub, paths in inner.items() if paths]
    if flat and scenes:
        picture, sub = flat[0].name, scenes[0].name
        raise UserError(
            f"{folder} holds both pictures ({picture}) and sub-folders with pictures ({sub}): move one kind elsewhere"
        )
    if not flat and not scenes:
        raise UserError(f"{folder}: no pictures found, neither in it nor in its subfolders")
    if scenes:
        return scenes, []
    alone = [path for path in flat if not is_picture(path) or read_metadata(path).radiance]
    captures = {path: capture(path) for path in flat if path not in alone}
    undated = [path for path, when in captures.items() if when is None]
    if len(undated) == len(flat):
        raise UserError(
            f"{flat[0]}: has no EXIF exposure time or capture time, so its bracket is unknown: "
            "make one sub-folder per scene"
        )
    brackets = split_brackets({path: when for path, when in captures.items() if when is not None})
    singles = [paths[0] for paths in brackets if len(paths) == 1] + undated
    stacks = [paths for paths in brackets if len(paths) > 1] + [[path] for path in alone]
    return [Scene(f"{paths[0].stem}_fused", paths) for paths in stacks], singles


def read_pairs(folder: str | os.PathLike, table: str | os.PathLike) -> list[Scene]:
    """Returns the scenes of a CSV table with the columns scene, under and over: two file names in folder/<scene>.

    Raises:
        FileNotFoundError: There is no such table.
        ValueError: As for `read_table`, or a scene occurs twice.
    """
    scenes = []
    for row in read_table(table, ("scene", "under", "over")):
        inner = Path(folder) / row["scene"]
        pair = (inner / row["under"], inner / row["over"])
        others = list_images(inner) if inner.is_dir() else []
        scenes.append(Scene(row["scene"], pair, tuple(sorted({*pair, *others}))))
    names = {scene.name for scene in scenes}
    if len(names) < len(scenes):
        raise UserError(f"{table}: expected one row per scene, got {len(scenes)} rows for {len(names)} scenes")
    return scenes


def with_outputs(scenes: Sequence[Scene], folder: str | os.PathLike) -> list[Scene]:
    """Returns the scenes with their fused pictures' paths: the scene's name with the suffix of its first exposure.

    Formats that are only read (camera raw, radiance maps) become .tif, which keeps 16 bits. If two paths would be the
    same file, even on a disk that ignores case, the later one gets a number.
    """
    named, taken = [], set()
    for scene in scenes:
        suffix, number, name = scene.paths[0].suffix.lower(), 1, scene.name
        suffix = suffix if suffix in WRITTEN_SUFFIXES else ".tif"
        while (key := unicodedata.normalize("NFC", f"{name}{suffix}").casefold()) in taken:
            number += 1
            name = f"{scene.name}_{number}"
        taken.add(key)
        named.append(replace(scene, out=Path(folder) / f"{name}{suffix}"))
    return named


def is_picture(path: str | os.PathLike) -> bool:
    """Returns whether a path is a picture file, by its header; the pixels are not read."""
    try:
        read_metadata(path)
        return True
    except (OSError, UserError):
        return False


def capture(path: str | os.PathLike) -> tuple[float, float] | None:
    """Returns when a photograph was taken and its exposure time, in seconds, by EXIF; None where either is absent."""
    metadata = read_metadata(path)
    captured = _seconds(metadata.captured)
    return None if captured is None or metadata.exposure_time is None else (captured, metadata.exposure_time)


def split_brackets(captures: dict[Path, tuple[float, float]]) -> list[list[Path]]:
    """Returns photographs in order of capture, split into brackets; `captures` is the `capture` of each.

    A bracket ends where an exposure time repeats, or after a pause of more than MAX_PAUSE seconds.
    """
    shots = [(captured, path, exposure_time) for path, (captured, exposure_time) in captures.items()]
    brackets: list[list[Path]] = []
    seen: set[float] = set()  # exposure times in the last bracket
    end: float | None = None  # of the last shot, in seconds
    for captured, path, exposure_time in sorted(shots):
        if end is None or exposure_time in seen or captured - end > MAX_PAUSE:
            brackets.append([])
            seen = set()
        brackets[-1].append(path)
        seen.add(exposure_time)
        end = captured + exposure_time
    return brackets


def _seconds(captured: str | None) -> float | None:
    """Returns EXIF's "YYYY:MM:DD HH:MM:SS.sss" in seconds; None where it is absent or not of this form."""
    try:
        return datetime.strptime(captured or "", "%Y:%m:%d %H:%M:%S.%f").timestamp()
    except ValueError:
        return None
