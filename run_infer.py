"""Fuse exposures: python run_infer.py UNDER OVER [MORE ...] [-o OUT], or --input_dir DIR --output_dir DIR."""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from configs import get_infer_args
from utils.util_align import align_exposures
from utils.util_fusion import Fuser, read_exposures
from utils.util_image import write_image
from utils.util_scenes import Scene, find_scenes
from utils.utils import exit_on_error


def main(args: argparse.Namespace) -> None:
    if args.input_dir:
        fuse_folder(args)
        return
    fuser = Fuser.from_checkpoint(args.weights, args.device, args.model)
    start = time.perf_counter()
    fuser.fuse_files(args.images, args.output, args.metadata_from, args.align)
    print(f"Fused {len(args.images)} exposures in {time.perf_counter() - start:.1f} s: {args.output}")


def fuse_folder(args: argparse.Namespace) -> None:
    """Fuses every scene of a folder; while one is fused, the next is read and the last one is written."""
    scenes, singles = find_scenes(args.input_dir)
    source, target = Path(args.input_dir).resolve(), Path(args.output_dir)
    if source in (target.resolve(), *target.resolve().parents):
        raise ValueError(f"--output_dir {target} lies in --input_dir, whose pictures are inputs: name another folder")
    jobs = [(scene, target / (scene.name + scene.paths[0].suffix.lower())) for scene in scenes]
    if singles:
        print(f"{len(singles)} pictures belong to no bracket: {', '.join(path.name for path in singles)}")
    if args.skip_existing:
        jobs = [(scene, out) for scene, out in jobs if not out.exists()]
        print(f"{len(scenes) - len(jobs)} of {len(scenes)} scenes are there already")
    fuser = Fuser.from_checkpoint(args.weights, args.device, args.model)
    failures = []

    def attempt(step: Callable, scene: Scene, *inputs: object) -> object:
        """Returns step(*inputs), or None after an error of the scene's, which is kept for the end."""
        try:
            return step(*inputs)
        except (ValueError, OSError, MemoryError) as error:
            failures.append(f"{scene.name}: {error or 'out of memory'}")
            return None

    def start_reading(position: int) -> Future | None:
        if position < len(jobs):
            scene, out = jobs[position]
            return reader.submit(attempt, read_exposures, scene, scene.paths, out)
        return None

    def fuse(images: list) -> np.ndarray:
        return fuser.fuse(align_exposures(images, args.align) if args.align else images)

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reading, writing = start_reading(0), None
        for position, (scene, out) in enumerate(tqdm(jobs, unit="scene")):
            exposures = reading.result()
            reading = start_reading(position + 1)
            fused = exposures and attempt(fuse, scene, exposures[0])
            if writing:
                writing.result()  # no more than one picture waits for the disk
            writing = (
                writer.submit(attempt, write_image, scene, out, fused, exposures[1]) if fused is not None else None
            )
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    print(f"Fused {len(jobs) - len(failures)} scenes: {target}")
    if failures:
        raise ValueError(f"{len(failures)} of {len(jobs)} scenes could not be fused, see above")


if __name__ == "__main__":
    with exit_on_error():
        main(get_infer_args())
