"""Fuse exposures: python run_infer.py UNDER OVER [MORE ...] [-o OUT], or a folder of scenes.

A single radiance map (float TIFF, OpenEXR, Radiance .hdr) is rendered to exposures, which are fused: tone mapping.
"""

import argparse
import contextlib
import functools
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from configs import DEFAULT_OUTPUT, NAMES, get_infer_args
from utils.errors import UserError, exit_on_error, told
from utils.fusing.fusion import End, Fuser, fuse_scenes
from utils.pictures.image import RADIANCE_SUFFIXES, WRITTEN_SUFFIXES
from utils.pictures.scenes import Found, Scene, find_scenes, is_finished, with_outputs
from utils.progress import listening

LATE = 2  # seconds until a bar appears
SLOWEST = timedelta(days=7)  # longest wait of the first process for the last; if one dies, torchrun ends all at once


def main(args: argparse.Namespace) -> None:
    with contextlib.redirect_stdout(None) if args.quiet else contextlib.nullcontext():
        fuse_folder(args) if args.input_dir else fuse_scene(args)


def fuse_scene(args: argparse.Namespace) -> None:
    start = time.perf_counter()
    out = Path(args.output)
    paths = [Path(path) for path in args.images]
    scene = Scene(out.stem, paths, out=out, metadata_from=args.metadata_from, reference=args.reference)
    if is_folder(args.output):
        scene = replace(scene, name=f"{paths[0].stem}_fused")
        [scene] = placed(args, [scene], args.output)
    else:
        check_named(args, out)
    kept = set_aside(scene.out) if args.output == DEFAULT_OUTPUT else None
    with contextlib.nullcontext() if args.quiet else late_bar():
        [end] = fuse_all(args, [scene])
    if end.error:
        if kept:
            os.replace(kept, scene.out)
        raise end.error
    stack = len(args.images) > 1
    what = f"{len(args.images)} exposures" if stack else "a radiance map"
    moving = f" (moving things as in {end.reference})" if end.reference else ""
    earlier = f"; the picture that was there is now {kept}" if kept else ""
    print(f"Fused {what} in {time.perf_counter() - start:.1f} s: {scene.out}{moving}{earlier}")


def is_folder(name: str) -> bool:
    """Returns whether a name means a folder: one that is there, or one with a slash at its end."""
    return name.endswith(("/", os.sep)) or os.path.isdir(name)


def placed(args: argparse.Namespace, scenes: Sequence[Scene], name: str) -> list[Scene]:
    """Returns the scenes with their fused pictures' paths in a folder `name`; of one scene it may name the picture."""
    target = Path(name)
    if target.suffix.lower() in (*WRITTEN_SUFFIXES, *RADIANCE_SUFFIXES) and not is_folder(name):
        if len(scenes) != 1:
            raise UserError(f"{target} is the name of one picture, but {len(scenes)} scenes were found: name a folder")
        check_named(args, target)
        return [replace(scenes[0], out=target)]
    return with_outputs(scenes, target, args.hdr, args.format and f".{args.format}", args.names)


def check_named(args: argparse.Namespace, picture: Path) -> None:
    """Raises an error about options that would not matter, since `picture` has its name and format."""
    if args.format or args.names != NAMES:
        raise UserError(f"--format and --names are for folders, but {picture} names a picture: name a folder with -o")


def set_aside(path: Path) -> Path | None:
    """Renames a picture to a name with the next free number, and returns that; None if there is no such picture."""
    if not path.exists():
        return None
    names = (path.with_name(f"{path.stem}_{number}{path.suffix}") for number in itertools.count(1))
    return path.rename(next(name for name in names if not name.exists()))


@contextlib.contextmanager
def late_bar() -> Iterator[None]:
    """Shows in a bar of one scene, which comes after LATE seconds, what is done, and how far it is."""
    start, bars = time.perf_counter(), list[Any]()

    def show(what: str, done: int, of: int) -> None:
        if not bars and time.perf_counter() - start > LATE:
            from tqdm import tqdm  # here, since its import takes as long as a small picture's writing

            bars.append(tqdm(leave=False, disable=None))
        for bar in bars:
            bar.n, bar.total = done, of
            bar.set_description(what)

    with listening(show):
        yield
    for bar in bars:
        bar.close()


def fuse_all(args: argparse.Namespace, scenes: Sequence[Scene]) -> Iterator[End]:
    load = functools.partial(Fuser.from_checkpoint, args.weights, args.device, args.model)
    how = (args.align, args.deghost, args.max_pixels, args.hdr, args.quality, args.one_look)
    return fuse_scenes(scenes, load, *how)


def fuse_folder(args: argparse.Namespace) -> None:
    """Fuses every scene of a folder; one bad scene does not stop the others.

    Where torchrun has started several processes, each fuses its share of the scenes, and the first one reports.
    """
    found = find_scenes(args.input_dir, args.shots)
    if args.dry_run:
        say_of(found)
        for scene in found.scenes:
            print(f"{scene.name}: {', '.join(os.path.relpath(path, args.input_dir) for path in scene.paths)}")
        print(f"{len(found.scenes)} scenes, none of them fused")
        return
    source, target = Path(args.input_dir).resolve(), Path(args.output_dir)
    if source in (target.resolve(), *target.resolve().parents):
        raise UserError(f"--output_dir {target} lies in --input_dir, whose pictures are inputs: name another folder")
    rank, ranks = place_among_processes()
    if ranks > 1:
        if args.one_look:
            raise UserError("--one_look looks at all scenes together: start one process, without torchrun")
        from utils.training import parallel  # imports PyTorch

        device = "cpu" if args.weights.endswith(".onnx") else args.device
        args.device = str(parallel.join_processes(device, SLOWEST))
    if rank == 0:
        say_of(found)
    # shared out before skipping: while others write, each process sees other files
    mine = placed(args, found.scenes, args.output_dir)[rank::ranks]
    if args.skip_existing:
        mine = [scene for scene in mine if not is_finished(scene)]
    from tqdm import tqdm  # here, as in `late_bar`

    with tqdm(total=len(mine), unit="scene", disable=rank > 0 or args.quiet) as bar:
        with listening(lambda what, done, of: bar.set_postfix_str(f"{what} {done}/{of}")):
            ends: list[str | None] = []
            for end in fuse_all(args, mine):
                ends.append(told(end.error, end.scene.name) if end.error else None)
                bar.update()
    if ranks > 1:
        ends = parallel.gathered(ends)
        parallel.leave_processes()
    if rank == 0:
        report(ends, len(found.scenes), target)
        if found.errors:
            raise UserError(f"{len(found.errors)} folders could not be read, see above")


def say_of(found: Found) -> None:
    """Prints what a person may doubt in the scenes of a folder, and what belongs to none."""
    for note in found.notes:
        print(note)
    for error in found.errors:
        print(f"error: {error}", file=sys.stderr)


def place_among_processes() -> tuple[int, int]:
    """Returns this process's number, from 0 on, and the number of processes that torchrun has started."""
    size, number = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    if size == "1":
        return 0, 1
    if not (size.isdecimal() and number.isdecimal() and int(number) < int(size)):
        raise UserError(f"RANK is {number!r} and WORLD_SIZE {size!r}: unset both, or start the processes by torchrun")
    return int(number), int(size)


def report(ends: list[str | None], scenes: int, target: Path) -> None:
    """Prints how many scenes of a folder were fused, skipped and failed; raises UserError if one failed.

    Args:
        ends: error as `told` or None, of every scene that was not skipped.
        scenes: number of all scenes.
    """
    failures = [error for error in ends if error]
    print(*failures, sep="\n", end="\n" * bool(failures), file=sys.stderr)
    fused, there = len(ends) - len(failures), scenes - len(ends)
    skipped = f", {there} {'was' if there == 1 else 'were'} there already" if there else ""
    print(f"Fused {fused} {'scene' if fused == 1 else 'scenes'}{skipped}: {target}")
    if failures:
        raise UserError(f"{len(failures)} of {len(ends)} scenes could not be fused, see above")


if __name__ == "__main__":
    with exit_on_error():
        main(get_infer_args())
