"""Scenes: which photographs belong together, found in a folder or read from a table of pairs."""

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.files import numbered, plain, read_table
from utils.pictures.brackets import Compare, Shot, comparer, find_brackets, find_rounds, one_view, read_shot
from utils.pictures.image import (
    HEIF_SUFFIXES,
    IMAGE_SUFFIXES,
    RADIANCE_SUFFIXES,
    WRITTEN_SUFFIXES,
    list_images,
    walk_images,
)
from utils.pictures.metadata import RAW_SUFFIXES, Metadata, read_metadata

NUMBERED = re.compile(r"\d{3}\w{5}", re.ASCII)  # a camera's folders in DCIM, such as 100NIKON; each holds 9999 shots
MADE = re.compile(r"[^0-9a-z]|(?<=[0-9])[a-z]")  # begins what programs and people add to the name of a shot


@dataclass(frozen=True)
class Scene:
    """The exposures to fuse, and what is wanted of them."""

    name: str
    paths: Sequence[Path]
    stack: Sequence[Path] = ()  # all shots of the scene, `paths` among them, to judge the picture by
    out: Path = Path()  # the picture to write
    metadata_from: str | os.PathLike | None = None  # whose EXIF and colour profile `out` gets; None: the first's
    reference: str | os.PathLike | None = None  # of `paths`: shows moving things as they shall be; None: best exposed


class Found(NamedTuple):
    """What `find_scenes` found in a folder."""

    scenes: list[Scene]
    notes: list[str]  # decisions that a person may doubt, one line each; they name every shot that is in no scene
    errors: list[str]  # folders that could not be read, one line each


def find_scenes(folder: str | os.PathLike, shots: int | None = None) -> Found:
    """Returns the scenes in a folder and all folders in it, and what else is to be said of it.

    Each folder is sorted alone, but the numbered ones of a camera (DCIM/100NIKON ...) together, by `find_brackets`.
    Where no picture has EXIF, a folder is one scene, if its pictures agree. A folder that is one scene gives it its
    name; any other scene has its first shot's name with "_fused". Radiance maps are scenes of their own. A file that
    cannot be read is added to the scene beside it that lacks a shot, which then fails when it is read; without such a
    scene the file is one itself.

    Args:
        shots: Number of shots per scene. They are then taken in order of time, or of names where there is no EXIF, and
            only need to agree.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There are no pictures in it.
    """
    root, compare = Path(folder), comparer()
    found = Found([], [], [])

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == root:
            raise error
        found.errors.append(f"{error.filename}: cannot be read ({error.strerror})")

    cards: dict[Path, list[Path]] = {}
    numbered = set()
    for inner, files in walk_images(root, (*IMAGE_SUFFIXES, *RADIANCE_SUFFIXES), unreadable):
        if NUMBERED.fullmatch(inner.name):
            inner = inner.parent
            numbered.add(inner)
        cards.setdefault(inner, []).extend(files)
    cards = {card: files for card, files in cards.items() if files}
    if not cards:
        raise UserError(f"{folder}: no pictures found, neither in it nor in its sub-folders")
    taken: dict[tuple, Path] = {}
    for card, files in cards.items():
        metadata = {path: metadata_of(path) for path in files}
        alone = [path for path, one in metadata.items() if one and one.radiance]
        damaged = [path for path, one in metadata.items() if not one]
        seen = {path: read_shot(path, one) for path, one in metadata.items() if one and not one.radiance}
        kept = list(_without_copies(seen, taken, found.notes).values())
        if shots:
            groups, notes = find_rounds(kept, compare, shots)
        else:
            groups, notes = _groups(kept, compare, card, card in numbered) if kept else ([], [])
        least = 1 if damaged and len(groups) == 1 else 2
        stacks = [[shot.path for shot in group] for group in groups if len(group) >= least]
        found.notes.extend(notes if least > 1 else [])  # the scene of a damaged shot fails, with one line
        alone += _join_damaged(damaged, files, stacks)
        named = len(stacks) == len(groups) == 1 and not alone and card not in (root, *numbered)
        found.scenes.extend(Scene(card.name if named else f"{paths[0].stem}_fused", paths) for paths in stacks)
        found.scenes.extend(Scene(f"{path.stem}_fused", [path]) for path in alone)
    return found


def metadata_of(path: Path) -> Metadata | None:
    """Returns a file's metadata, or None if it is no picture or not there: a scene of it gets the error later."""
    try:
        return read_metadata(path)
    except (OSError, ValueError):
        return None


def _without_copies(seen: dict[Path, Shot], taken: dict[tuple, Path], notes: list[str]) -> dict[Path, Shot]:
    """Returns the shots that are no copy of an earlier one: of the same moment, with its name or a name made from it.

    Such are raw and JPEG of one shot in two folders, HEIC and JPEG, or a fused picture among its shots.

    Args:
        taken: The shots of folders before; these are added.
    """
    kept, copies = {}, []
    for path in sorted(seen, key=lambda path: (path.suffix.lower() in RAW_SUFFIXES, len(path.stem), path)):
        shot, name = seen[path], path.stem.casefold()
        moment = shot.kind[:2], shot.captured, shot.level
        names = [name, *(name[: match.start()] for match in MADE.finditer(name))]
        first = next((taken[moment, one] for one in names if (moment, one) in taken), None)
        if first and not math.isnan(shot.captured):
            copies.append(f"{path.name} is the same shot as {first}")
        else:
            taken.setdefault((moment, name), path)
            kept[path] = shot
    if copies:
        notes.append(f"left out: {copies[0]}{f', and {len(copies) - 1} more' if len(copies) > 1 else ''}")
    return {path: kept[path] for path in seen if path in kept}


def _groups(seen: list[Shot], compare: Compare, card: Path, numbered: bool) -> tuple[list[list[Shot]], list[str]]:
    """Returns the groups of a card's or folder's shots, and notes, as `find_brackets`; shots without EXIF join them."""
    dated = [shot for shot in seen if not math.isnan(shot.captured)]
    undated = [shot for shot in seen if math.isnan(shot.captured)]
    if not dated:
        return one_view(undated, compare, str(card))
    groups, notes = find_brackets(dated, compare, patient=True)
    if len(groups) > 1 or numbered:
        groups, notes = find_brackets(dated, compare)
    for shot in undated:
        beside = [group for group in groups if len(group) > 1 and any(compare(shot, one) for one in group)]
        if len(beside) == 1:
            beside[0].append(shot)
            notes.append(f"{shot.path.name}: has no EXIF capture time, but shows the same as {beside[0][0].path.name}")
        else:
            groups.append([shot])
            notes.append(f"kept apart: {shot.path.name}: has no EXIF exposure time or capture time")
    return groups, notes


def _join_damaged(damaged: list[Path], files: list[Path], stacks: list[list[Path]]) -> list[Path]:
    """Adds each damaged file to the scenes beside it that may lack it; returns those that are added to none.

    That is a scene with shots on both sides of it, or with fewer shots than most others have, or the only one.
    """
    left, whole = [], [list(stack) for stack in stacks]

    def usual(stack: list[Path]) -> float:
        """Returns the number of shots of most other scenes."""
        sizes = Counter(len(other) for other in whole if other[0] != stack[0])
        return max(sizes, key=lambda size: (sizes[size], size), default=math.inf)

    for path in damaged:
        number = files.index(path)
        before = next((one for one in reversed(files[:number]) if one not in damaged), None)
        after = next((one for one in files[number:] if one not in damaged), None)
        beside = [stack for stack in stacks if before in stack or after in stack]
        lacking = [stack for stack in beside if before in stack and after in stack or len(stack) < usual(stack)]
        for stack in lacking:
            stack.append(path)
        left += [] if lacking else [path]
    return left


def read_pairs(folder: str | os.PathLike, table: str | os.PathLike) -> list[Scene]:
    """Returns the scenes of a CSV table with the columns scene, under and over: two file names in folder/<scene>.

    Raises:
        FileNotFoundError: There is no such table.
        ValueError: As for `read_table`; a scene occurs twice; or a name leads out of the folder.
    """
    scenes = []
    for row in read_table(table, ("scene", "under", "over")):
        for name in row["scene"], row["under"], row["over"]:
            if name in ("", "..") or name != Path(name).name:  # results are named after scenes
                raise UserError(f"{table}: expected names of folders and files, without a path, got {name!r}")
        inner = Path(folder) / row["scene"]
        pair = (inner / row["under"], inner / row["over"])
        others = list_images(inner) if inner.is_dir() else []
        scenes.append(Scene(row["scene"], pair, tuple(sorted({*pair, *others}))))
    names = {plain(scene.name) for scene in scenes}
    if len(names) < len(scenes):
        raise UserError(f"{table}: expected one row per scene, got {len(scenes)} rows for {len(names)} scenes")
    return scenes


def with_outputs(
    scenes: Sequence[Scene],
    folder: str | os.PathLike,
    hdr: bool = False,
    suffix: str | None = None,
    pattern: str = "{name}",
) -> list[Scene]:
    """Returns the scenes with their fused pictures' paths in a folder.

    If two paths would be the same file, even on a disk that ignores case, the later one gets a number.

    Args:
        hdr: Whether all but AVIF and HEIC become .jpg, Ultra HDR.
        suffix: Of all; None is that of a scene's first exposure, or .tif, which keeps 16 bits, for formats that are
            only read (camera raw, radiance maps).
        pattern: Of the names, with {name} of the scene, {first} and {last} exposure, {number} from 1.
    """
    named, taken = [], set()
    for count, scene in enumerate(scenes, 1):
        first, last = scene.paths[0], scene.paths[-1]
        own = first.suffix.lower() if first.suffix.lower() in WRITTEN_SUFFIXES else ".tif"
        own = suffix or (".jpg" if hdr and own not in (".jpeg", ".avif", *HEIF_SUFFIXES) else own)
        wanted = pattern.format(name=scene.name, first=first.stem, last=last.stem, number=count)
        name = next(f"{one}{own}" for one in numbered(wanted) if plain(f"{one}{own}") not in taken)
        taken.add(plain(name))
        named.append(replace(scene, out=Path(folder) / name))
    return named


def is_finished(scene: Scene) -> bool:
    """Returns whether a scene's picture is there, and made of its shots: all can be read, and none is newer."""
    if not all(map(metadata_of, (scene.out, *scene.paths))):
        return False
    times = [os.stat(path) for path in scene.paths]
    return max(max(time.st_mtime, time.st_ctime) for time in times) <= os.stat(scene.out).st_mtime  # copies keep mtime
