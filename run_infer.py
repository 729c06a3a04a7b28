"""Fuse exposures: python run_infer.py UNDER OVER [MORE ...] [-o OUT], or --input_dir DIR --output_dir DIR.

A single radiance map (float TIFF, OpenEXR, Radiance .hdr) is rendered to exposures, which are fused: tone mapping.
"""

import argparse
import sys
import time
from pathlib import Path

from tqdm import tqdm

from configs import get_infer_args
from utils.util_fusion import Fuser, Job, fuse_scenes
from utils.util_scenes import find_scenes, is_picture, output_paths
from utils.utils import exit_on_error


def main(args: argparse.Namespace) -> None:
    if args.input_dir:
        fuse_folder(args)
        return
    start = time.perf_counter()
    job = Job(Path(args.output).stem, args.images, args.output, args.metadata_from, args.max_pixels, args.reference)
    for _, error in fuse_scenes([job], lambda: load(args), args.align, args.deghost):
        if error:
            raise error
    what = f"{len(args.images)} exposures" if len(args.images) > 1 else "a radiance map"
    print(f"Fused {what} in {time.perf_counter() - start:.1f} s: {args.output}")


def load(args: argparse.Namespace) -> Fuser:
    return Fuser.from_checkpoint(args.weights, args.device, args.model)


def fuse_folder(args: argparse.Namespace) -> None:
    """Fuses every scene of a folder; one bad scene does not stop the others."""
    scenes, singles = find_scenes(args.input_dir)
    source, target = Path(args.input_dir).resolve(), Path(args.output_dir)
    if source in (target.resolve(), *target.resolve().parents):
        raise ValueError(f"--output_dir {target} lies in --input_dir, whose pictures are inputs: name another folder")
    if singles:
        print(f"{len(singles)} pictures belong to no bracket: {', '.join(path.name for path in singles)}")
    outs = output_paths(scenes, target)
    jobs = [Job(scene.name, scene.paths, out, None, args.max_pixels) for scene, out in zip(scenes, outs, strict=True)]
    if args.skip_existing:
        jobs = [job for job in jobs if not is_picture(job.out)]
        print(f"{len(scenes) - len(jobs)} of {len(scenes)} scenes are there already")
    finished = tqdm(fuse_scenes(jobs, lambda: load(args), args.align, args.deghost), total=len(jobs), unit="scene")
    failures = [f"{job.name}: {error}" for job, error in finished if error is not None]
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    print(f"Fused {len(jobs) - len(failures)} scenes: {target}")
    if failures:
        raise ValueError(f"{len(failures)} of {len(jobs)} scenes could not be fused, see above")


if __name__ == "__main__":
    with exit_on_error():
        main(get_infer_args())
