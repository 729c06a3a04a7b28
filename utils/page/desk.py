"""A desk: the shots that one visitor has brought, the scenes that they make, and the pictures made of them."""

import contextlib
import functools
import io
import itertools
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from utils.errors import Defect, UserError
from utils.files import numbered, plain
from utils.fusing.adjust import Look
from utils.fusing.fusion import Fuser
from utils.page.task import THUMB_SIDE, Options, Shot, Task, exposures, show
from utils.pictures.image import IMAGE_SUFFIXES, RADIANCE_SUFFIXES, read_photo
from utils.pictures.pixels import shrink
from utils.pictures.scenes import find_scenes

SUFFIXES = (*IMAGE_SUFFIXES, *RADIANCE_SUFFIXES)
MAX_BYTES = 1 << 30  # of a file: 100 megapixels of 16 bits are 600 MB
MAX_SHOTS = 2000  # of a desk
FREE_BYTES = 1 << 30  # that stay free on the disk
FORBIDDEN = '<>:"|?*'  # in names of files on Windows
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{k}" for port in ("COM", "LPT") for k in range(1, 10))}  # there, too


class Desk:
    """What is kept for one visitor, in a folder of its own. Its methods may be called from several threads."""

    def __init__(self, folder: Path, wait: Callable[[Task, object], None]):
        """Makes the folder; `wait` puts a task's run into the queue."""
        self.folder, self.wait = folder, wait
        self.lock = threading.RLock()
        self.numbers = itertools.count(1)
        self.shots: dict[int, Shot] = {}
        self.tasks: dict[int, Task] = {}
        self.spare: list[int] = []  # numbers of the shots that belong to no scene
        self.drops: dict[int, tuple[Options, int | None]] = {}
        self.seen = time.monotonic()
        folder.mkdir()

    def begin(self, options: Options, count: int | None = None) -> int:
        """Returns the number of a new drop: files that are brought together; `count` as `shots` of `find_scenes`."""
        with self.lock:
            number = next(self.numbers)
            self.drops[number] = options, count
        (self.folder / f"drop{number}").mkdir()
        return number

    def receive(self, drop: int, name: str, source: io.BufferedIOBase, length: int) -> Shot:
        """Returns a shot of a drop, read from `source` and kept under its own name and folders."""
        label = "/".join(filter(None, map(tidy, name.replace("\\", "/").split("/"))))
        if Path(label).suffix.lower() not in SUFFIXES:
            raise UserError(f"{label or 'a file without a name'}: is not a picture that DeepFuse reads")
        if length > MAX_BYTES:
            raise UserError(f"{label}: has {length:,} bytes, expected at most {MAX_BYTES:,}")
        if length > shutil.disk_usage(self.folder).free - FREE_BYTES:
            raise UserError(f"{label}: the disk is full: remove scenes here, or free space")
        with self.lock:
            self.drops[drop]  # KeyError
            if len(self.shots) >= MAX_SHOTS:
                raise UserError(f"{label}: there are {MAX_SHOTS:,} shots already: remove scenes first")
            number = next(self.numbers)
            path = self.folder / f"drop{drop}" / label
            if path.exists():  # also where the disk ignores case
                path = path.with_stem(f"{path.stem}_{number}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            shot = self.shots[number] = Shot(number, path, label)
        try:
            with open(path, "wb") as file:
                while length and (block := source.read(min(length, 1 << 20))):
                    file.write(block)
                    length -= len(block)
            if length:
                raise UserError(f"{label}: the upload ended early")
        except BaseException:
            with self.lock:
                self._forget([number])
            raise
        return shot

    def sort(self, drop: int) -> tuple[list[int], list[str]]:
        """Returns the numbers of the scenes that a drop makes, which wait to be fused, and what `find_scenes` notes.

        Shots that belong to no scene are spare ones.
        """
        with self.lock:
            options, count = self.drops.pop(drop)
            folder = self.folder / f"drop{drop}"
            brought = {shot.path: shot for shot in self.shots.values() if folder in shot.path.parents}
        if not brought:
            return [], []
        found = find_scenes(folder, count)
        scenes = [[brought[path] for path in scene.paths] for scene in found.scenes]
        rest = set(brought.values()).difference(*scenes)  # also copies of others
        notes = [note.replace(f"{folder}{os.sep}", "") for note in [*found.notes, *found.errors]]
        with self.lock:
            self.spare += sorted(shot.number for shot in rest)
            names = [scene.name for scene in found.scenes]
            return [self._add(name, shots, options) for name, shots in zip(names, scenes, strict=True)], notes

    def together(self, numbers: Sequence[int], options: Options) -> int:
        """Returns the number of a new scene, made of spare shots; it waits to be fused."""
        with self.lock:
            if not numbers or not set(numbers) <= set(self.spare):
                raise UserError("these shots are not there any more: choose again")
            self.spare = [number for number in self.spare if number not in numbers]
            shots = [self.shots[number] for number in numbers]
            return self._add(f"{shots[0].path.stem}_fused", shots, options)

    def _add(self, name: str, shots: list[Shot], options: Options) -> int:
        """Returns the number of a new task, which waits to be fused; no other has its name."""
        taken = {plain(task.name) for task in self.tasks.values()}
        name = next(one for one in numbered(name) if plain(one) not in taken)
        number = next(self.numbers)
        folder = self.folder / f"task{number}"
        folder.mkdir()
        self.tasks[number] = Task(number, name, shots, options, folder)
        self.fuse(number, options)
        return number

    def fuse(self, number: int, options: Options) -> None:
        """Lets a scene wait to be fused, also again: then its picture is gone at once."""
        with self.lock:
            task = self.tasks[number]
            if options.reference not in [shot.number for shot in task.shots]:  # chosen for another scene
                options = replace(options, reference=None)
            self.wait(task, task.restart(options))

    def remove(self, number: int, apart: bool = False) -> None:
        """Takes a scene off the desk, with its shots; or `apart`: its shots stay as spare ones."""
        with self.lock:
            task = self.tasks.pop(number)
            task.cancel()
            shots = [shot.number for shot in task.shots]
            self.spare += shots
            if not apart:
                self._forget(shots)
        shutil.rmtree(task.folder, ignore_errors=True)
        exposures.cache_clear()  # they may be its own

    def forget(self, numbers: Sequence[int]) -> None:
        """Deletes those of these shots that are spare."""
        with self.lock:
            self._forget([number for number in numbers if number in self.spare])

    def _forget(self, numbers: Sequence[int]) -> None:
        self.spare = [number for number in self.spare if number not in numbers]
        for number in numbers:
            self.shots.pop(number).path.unlink(missing_ok=True)
            (self.folder / f"thumb{number}.jpg").unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes all scenes and shots."""
        for number in list(self.tasks):
            self.remove(number)
        self.forget(list(self.spare))

    def thumb(self, number: int) -> Path:
        """Returns the file of a small JPEG of a shot."""
        path = self.folder / f"thumb{number}.jpg"
        if not path.exists():
            image, metadata = read_photo(self.shots[number].path, shrink=4)
            show(shrink(image, side=THUMB_SIDE), metadata, path)
        return path

    @contextlib.contextmanager
    def picture(self, number: int, suffix: str, quality: int) -> Iterator[tuple[Path, str]]:
        """Yields a file with the picture of a scene as it looks, and the name that a visitor saves it by."""
        task = self.tasks[number]
        path = task.folder / f"picture{threading.get_ident()}{suffix}"
        try:
            yield task.save(path, quality), f"{task.name}{suffix}"
        except UserError as error:
            raise UserError(task.plain(error).replace(str(path), task.name)) from error
        finally:
            path.unlink(missing_ok=True)

    def change(self, number: int, look: Look) -> None:
        with self.lock:
            task = self.tasks[number]
            task.look, task.revision = look, task.revision + 1

    def state(self) -> dict[str, Any]:
        """Returns all that the page shows, ready for JSON."""
        names = ("number", "name", "state", "says", "fraction", "warnings", "reference", "views", "size", "revision")
        with self.lock:
            tasks = [
                {name: getattr(task, name) for name in names}
                | {"look": vars(task.look), "options": vars(task.options)}
                | {"shots": [{"number": shot.number, "label": shot.label} for shot in task.shots]}
                for task in self.tasks.values()
            ]
            return {"scenes": tasks, "spare": [{"number": n, "label": self.shots[n].label} for n in self.spare]}


class Worker(threading.Thread):
    """Fuses one scene after the other, of all desks, in the order in which they came."""

    def __init__(self, load: Callable[[str], Fuser], report: Callable[[Defect], None]):
        """`load` returns the Fuser of a file of weights; `report` tells of a defect in the program."""
        super().__init__(daemon=True)
        self.load, self.report = functools.lru_cache(1)(load), report
        self.queue: queue.SimpleQueue[tuple[Task, object] | None] = queue.SimpleQueue()

    def wait(self, task: Task, run: object) -> None:
        self.queue.put((task, run))

    def run(self) -> None:
        while waiting := self.queue.get():
            try:
                waiting[0].work(waiting[1], self.load)
            except Defect as defect:
                self.report(defect)

    def stop(self) -> None:
        """Waits until the scene that is being fused is done or cancelled."""
        self.queue.put(None)
        self.join()


def tidy(part: str) -> str:
    """Returns part of a path as a name that every system allows; "" if nothing is left of it, as of ".."."""
    part = "".join(c for c in part if c.isprintable() and c not in FORBIDDEN)[-80:].strip(" .")
    return f"_{part}" if part.split(".")[0].upper() in RESERVED else part
