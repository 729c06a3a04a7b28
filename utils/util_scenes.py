"""Find the scenes in a folder: which photographs are exposures of one and the same."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from utils.util_image import list_images
from utils.util_metadata import read_metadata

MAX_PAUSE = 10  # seconds between the end of one shot and the start of the next of its bracket


@dataclass(frozen=True)
class Scene:
    """Two or more exposures, and the name that the fused picture gets."""

    name: str
    paths: list[Path]


def find_scenes(folder: str | os.PathLike) -> tuple[list[Scene], list[Path]]:
    """Returns the scenes in a folder, sorted by name, and the pictures that belong to none.

    Where it has subfolders with pictures, each is a scene and gives it its name. Where it holds the pictures itself,
    they are split into brackets by `split_brackets`; a scene's name is its first shot's, with "_fused".

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No pictures, pictures both beside and in subfolders, or no capture data to split them by.
    """
    folder = Path(folder)
    flat = list_images(folder)
    inner = {sub: list_images(sub) for sub in sorted(folder.iterdir()) if sub.is_dir()}
    scenes = [Scene(sub.name, paths) for sub, paths in inner.items() if paths]
    if flat and scenes:
        raise ValueError(f"{folder}: pictures lie both in it and in its subfolders: expected one of the two")
    if not flat and not scenes:
        raise ValueError(f"{folder}: no pictures found, neither in it nor in its subfolders")
    if scenes:
        return scenes, []
    brackets = split_brackets(flat)
    scenes = [Scene(f"{paths[0].stem}_fused", paths) for paths in brackets if len(paths) > 1]
    return scenes, [paths[0] for paths in brackets if len(paths) == 1]


def split_brackets(paths: list[Path]) -> list[list[Path]]:
    """Returns photographs in order of capture, split into brackets, by EXIF.

    A bracket ends where an exposure time comes again, or after a pause of more than MAX_PAUSE seconds.

    Raises:
        ValueError: A photograph without EXIF exposure or capture time.
    """
    shots = []
    for path in paths:
        metadata = read_metadata(path)
        captured = _seconds(metadata.captured)
        if metadata.exposure_time is None or captured is None:
            raise ValueError(f"{path}: no EXIF exposure and capture time to find its bracket by: use a folder a scene")
        shots.append((captured, path, metadata.exposure_time))
    brackets, seen, end = [], set(), None
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
