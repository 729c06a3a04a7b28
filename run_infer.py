"""Fuse exposures: python run_infer.py UNDER OVER [MORE ...] [-o OUT], or --input_dir DIR --output_dir DIR.

A single radiance map (float TIFF, OpenEXR, Radiance .hdr) is rendered to exposures, which are fused: tone mapping.
"""

import argparse
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm

from configs import get_infer_args
from utils.errors import UserError, exit_on_error, told
from utils.fusing.fusion import Fuser, fuse_scenes
from utils.pictures.scenes import Found, Scene, find_scenes, is_finished, with_outputs

SLOWEST = timedelta(days=7)  # longest wait of the first process for the last; if one dies, torchrun ends all at once


def main(args: argparse.Namespace) -> None:
    if args.input_dir:
        fuse_folder(args)
        return
    start = time.perf_counter()
    out = Path(args.output)
    paths = [Path(path) for path in args.images]
    scene = Scene(out.stem, paths, out=out, metadata_from=args.metadata_from, reference=args.reference)
    [end] = fuse_scenes([scene], lambda: load(args), args.align, args.deghost, args.max_pixels, args.hdr)
    if end.error:
        raise end.error
    stack = len(args.images) > 1
    what = f"{len(args.images)} exposures" if stack else "a radiance map"
    moving = f" (moving things as in {end.reference})" if end.reference else ""
    print(f"Fused {what} in {time.perf_counter() - start:.1f} s: {args.output}{moving}")


def load(args: argparse.Namespace) -> Fuser:
    return Fuser.from_checkpoint(args.weights, args.device, args.model)


def fuse_folder(args: argparse.Namespace) -> None:
    """Fuses every scene of a folder; one bad scene does not stop the others.

    Where torchrun has started several processes, each fuses its share of the scenes, and the first one reports.
    """
    found = find_scenes(args.input_dir)
    source, target = Path(args.input_dir).resolve(), Path(args.output_dir)
    if source in (target.resolve(), *target.resolve().parents):
        raise UserError(f"--output_dir {target} lies in --input_dir, whose pictures are inputs: name another folder")
    rank, ranks = place_among_processes()
    if ranks > 1:
        from utils.training import parallel  # imports PyTorch

        device = "cpu" if args.weights.endswith(".onnx") else args.device
        args.device = str(parallel.join_processes(device, SLOWEST))
    if rank == 0:
        say_of(found, args.input_dir)
    mine = with_outputs(found.scenes, target, args.hdr)[rank::ranks]  # before skipping: others write, each sees others
    if args.skip_existing:
        mine = [scene for scene in mine if not is_finished(scene)]
    finished = fuse_scenes(mine, lambda: load(args), args.align, args.deghost, args.max_pixels, args.hdr)
    shown = tqdm(finished, total=len(mine), unit="scene", disable=rank > 0)
    ends = [end.error and told(end.error, end.scene.name) for end in shown]
    if ranks > 1:
        ends = parallel.gathered(ends)
        parallel.leave_processes()
    if rank == 0:
        report(ends, len(found.scenes), target)
        if found.errors:
            raise UserError(f"{len(found.errors)} folders could not be read, see above")


def say_of(found: Found, folder: str) -> None:
    """Prints what a person may doubt in the scenes of a folder, and what belongs to none."""
    for note in found.notes:
        print(note)
    if found.singles:
        what = "1 picture belongs" if len(found.singles) == 1 else f"{len(found.singles)} pictures belong"
        print(f"{what} to no scene: {', '.join(os.path.relpath(path, folder) for path in found.singles)}")
    for error in found.errors:
        print(f"error: {error}", file=sys.stderr)


def place_among_processes() -> tuple[int, int]:
    """Returns this process's number, from 0 on, and the number of processes that torchrun has started.

    Raises:
        UserError: The environment's RANK and WORLD_SIZE are no such numbers.
    """
    size, number = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    if size == "1":
        return 0, 1
    if not (size.isdecimal() and number.isdecimal() and int(number) < int(size)):
        raise UserError(f"RANK is {number!r} and WORLD_SIZE {size!r}: unset both, or start the processes by torchrun")
    return int(number), int(size)


def report(ends: list[str | None], scenes: int, target: Path) -> None:
    """Prints how many scenes of a folder were fused, skipped and failed.

    Args:
        ends: error as `told` or None, of every scene that was not skipped.
        scenes: number of all scenes.

    Raises:
        ValueError: some could not be fused.
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
