"""Fuses a folder of exposure brackets with several methods and scores the saved pictures: python run_eval.py."""

import argparse
import csv
import multiprocessing
import os
import platform
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.metadata import version
from pathlib import Path

from configs import command, get_eval_args
from utils.errors import UserError, exit_on_error, told
from utils.files import git_sha, replacing

if __name__ == "__main__":  # before the slow imports, so that --help is instant
    with exit_on_error():
        ARGS = get_eval_args()

import cv2
import numpy as np
import torch
from tqdm import tqdm

from utils.evaluation import metric, report, scoring
from utils.evaluation.report import Column, Row, Table
from utils.evaluation.scoring import Method
from utils.pictures.scenes import Scene


def main(args: argparse.Namespace) -> None:
    output = Path(args.output)
    scenes = scoring.find_eval_scenes(args.data, args.pairs, args.full_stack)
    extra = extra_columns(args)
    methods = choose_methods(args)
    folders = {name: output / "pictures" / name for name in methods}
    folders |= {name: Path(folder) for name, folder in args.results.items()}
    read = [args.data, *args.results.values(), *([args.reference] if args.reference else [])]
    scoring.clear_output(output, {"commit": git_sha(), **vars(args)}, read)
    score = partial(
        attempt,
        methods=methods,
        folders=folders,
        reference=args.reference and Path(args.reference),
        lpips=args.lpips,
        iqa=args.iqa,
        sheets=output / "sheets",
        max_width=args.max_width,
    )
    rows, faults = score_all(score, scenes, args.jobs)
    print(*faults, sep="\n", end="\n" * bool(faults), file=sys.stderr)
    if not rows:
        raise UserError("no scene could be scored, see above")

    found = tables(rows, extra)
    text = "\n".join([describe(args, rows, extra), *map(report.markdown, found)])
    with replacing(output / "results.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        sheet = csv.DictWriter(file, rows[0])
        sheet.writeheader()
        sheet.writerows(rows)
    for name, written in (("results.md", text), ("results.tex", "\n".join(map(report.latex, found)))):
        with replacing(output / name) as path:
            path.write_text(written, encoding="utf-8")
    print(text)
    print(f"Rows, this report (Markdown, LaTeX), the pictures and a contact sheet per scene are in {output}")
    if faults:
        raise UserError(f"{len(faults)} of {len(scenes)} scenes are not in the scores, see above")


def extra_columns(args: argparse.Namespace) -> tuple[Column, ...]:
    """Returns the optional columns of this evaluation; raises before any work if a folder or package is missing."""
    for option, folders in (("--results", args.results.values()), ("--reference", [args.reference])):
        for folder in folders:
            if folder is not None and not Path(folder).is_dir():
                raise FileNotFoundError(f"{folder}: no such folder of pictures for {option}")
    if args.lpips:
        metric.load_lpips()
    lower = {name: metric.load_iqa(name)[1] for name in args.iqa}
    return (
        *(report.REFERENCE if args.reference else ()),
        *(report.LPIPS if args.lpips else ()),
        *(Column(name, name, ".3f", "without a reference", "lower" if lower[name] else "higher") for name in lower),
    )


def choose_methods(args: argparse.Namespace) -> dict[str, Method]:
    """Returns the methods to run, by name; loads the checkpoints, so that a bad one raises before any work."""
    methods: dict[str, Method] = {}
    for name, path in args.weights.items():
        scoring.load_fuser(path, args.device)
        methods[name] = partial(scoring.fuse_with_weights, weights=path, device=args.device)
    for name in args.methods:
        if name == "enfuse" and scoring.enfuse_version() is None:
            print("enfuse is not installed: scoring without it")
            continue
        methods[name] = scoring.BASELINES[name]
    return methods


def attempt(scene: Scene, **how) -> tuple[list[Row], str | None]:
    """Returns (rows, None) of a scene, or ([], its error as `told`), so that one bad scene does not stop the others."""
    try:
        return scoring.score_scene(scene, **how), None
    except Exception as error:
        return [], told(error, scene.name)


def score_all(score: partial, scenes: Sequence[Scene], jobs: int) -> tuple[list[Row], list[str]]:
    """Returns the rows of all scenes that could be scored, and a line for each that could not."""
    results = map(score, scenes) if jobs == 1 else score_in_processes(score, scenes, jobs)
    results = list(tqdm(results, "Scoring scenes", len(scenes), unit="scene"))
    return [row for rows, _ in results for row in rows], [fault for _, fault in results if fault is not None]


def score_in_processes(score: partial, scenes: Sequence[Scene], jobs: int) -> Iterator[tuple[list[Row], str | None]]:
    """Yields what `score` returns for each scene, computed in `jobs` processes.

    If a process is killed, the pool is lost with it: every scene without a result gets a line that says so.
    """
    spawn = multiprocessing.get_context("spawn")  # PyTorch's threads do not survive a fork
    with ProcessPoolExecutor(jobs, spawn, set_up_worker, (max(1, (os.cpu_count() or 1) // jobs),)) as pool:
        futures = [pool.submit(score, scene) for scene in scenes]
        try:
            for scene, future in zip(scenes, futures, strict=True):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    why = "not scored, since a process was killed, as when memory runs out: use fewer --jobs"
                    yield [], f"error: {scene.name}: {why}"
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, scenes under way are finished


def set_up_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then stops the others
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def describe(args: argparse.Namespace, rows: list[Row], extra: Sequence[Column]) -> str:
    """Returns a Markdown list: scenes, sizes, definitions of the columns, versions and the command."""
    scenes = {row["scene"]: row for row in rows}.values()
    smallest, largest = (f(scenes, key=lambda row: row["width"] * row["height"]) for f in (min, max))
    sizes = dict.fromkeys(f"{row['width']}x{row['height']}" for row in (smallest, largest))
    programs = [f"Python {platform.python_version()}", f"NumPy {np.__version__}", f"OpenCV {cv2.__version__}"]
    programs += [f"scikit-image {version('scikit-image')}", f"PyTorch {torch.__version__}"]
    if "enfuse" in {row["method"] for row in rows}:
        programs.append(scoring.enfuse_version() or "enfuse")
    shrunk = f"; wider ones were shrunk to {args.max_width} before they were fused" if args.max_width else ""
    pair = (report.MEF_SSIM_FUSED,) if report.more_than_fused(rows) else ()
    columns = (*report.FIDELITY, *pair, *report.COLOUR, *report.LOOK, *extra)
    lines = [
        f"{len(scenes)} scenes of {Path(args.data).name}, {' to '.join(sizes)} pixels{shrunk}",
        f"fused: {span(rows, 'fused')} shots per scene; scored against {judges(rows)}",
        "pictures are scored as saved: 8 bit, read back; gray (Matlab's rgb2gray, rounded) except in colour scores",
        *(f"{c.heading}: {c.definition}{c.better and f'; {c.better} is better'}" for c in columns),
        "95 % interval: of the mean of MEF-SSIM, by bootstrap over the scenes",
        "wins: scenes in which no other method has a higher MEF-SSIM",
        f"DeepFuse {git_sha()}, {', '.join(programs)}",
        f"`{command('eval')} {shlex.join(sys.argv[1:])}`",
    ]
    return "\n".join(f"- {line}" for line in lines) + "\n"


def tables(rows: list[Row], extra: Sequence[Column]) -> list[Table]:
    """Returns the tables: fidelity, colour, MEF-SSIM by scale, looks, the columns of `extra`, MEF-SSIM by scene."""
    unseen = "the shots that were not fused" if report.more_than_fused(rows) else "the shots"
    references = [column for column in extra if column in (*report.REFERENCE, *report.LPIPS)]
    others = [column for column in extra if column not in references]
    mean = partial(report.mean_table, rows)
    found = [
        report.fidelity_table(rows, f"Fidelity to {judges(rows)}, mean over the scenes"),
        mean(report.COLOUR, f"Colour against the best exposed of {unseen} at each pixel"),
        mean(report.PROFILE, "MEF-SSIM by scale: halos and grey veils sit in the coarse ones"),
        mean(report.LOOK, "How the pictures look: no measure of quality by itself"),
    ]
    if references:
        found.append(mean(references, "Against the reference pictures"))
    if others:
        found.append(mean(others, "Without a reference"))
    return [*found, report.scene_table(rows, caption="MEF-SSIM by scene")]


def judges(rows: list[Row]) -> str:
    """Returns the name of what the pictures are scored against, such as "all shots of the scene (3 to 9)"."""
    which = "all shots of the scene" if report.more_than_fused(rows) else "the shots that were fused"
    return f"{which} ({span(rows, 'exposures')})"


def span(rows: list[Row], key: str) -> str:
    numbers = [row[key] for row in rows]
    return " to ".join(map(str, dict.fromkeys((min(numbers), max(numbers)))))


if __name__ == "__main__":
    with exit_on_error():
        main(ARGS)
