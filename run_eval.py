"""Fuses a folder of exposure brackets with several methods and scores the saved pictures: python run_eval.py."""

import argparse
import csv
import importlib.util
import multiprocessing
import os
import platform
import shlex
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import skimage
import torch
from tqdm import tqdm

from configs import get_eval_args
from utils import util_eval
from utils.util_eval import FIDELITY, LOOK, LPIPS, PROFILE, REFERENCE, EvalScene, Method, Row
from utils.utils import exit_on_error, git_sha, replacing


def main(args: argparse.Namespace) -> None:
    if args.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {args.jobs}")
    output = Path(args.output)
    scenes = util_eval.find_eval_scenes(args.data, args.pairs, args.full_stack)
    methods = choose_methods(args)
    folders = {name: output / "pictures" / name for name in methods} | saved_results(args.results, methods)
    if not folders:
        raise ValueError("there is no method to score: give --methods, --weights or --results")
    score = partial(
        attempt,
        methods=methods,
        folders=folders,
        reference=reference_folder(args),
        lpips=args.lpips,
        sheets=output / "sheets",
    )
    rows, faults = score_all(score, scenes, args.jobs)
    if not rows:
        raise ValueError(f"no scene could be scored. {faults[0]}")

    references = REFERENCE * (args.reference is not None) + (LPIPS,) * args.lpips
    report = describe(args, rows, references) + "\n" + tables(rows, references)
    with replacing(output / "results.csv") as path:
        write_csv(path, rows)
    with replacing(output / "results.md") as path:
        path.write_text(report, encoding="utf-8")
    print(report)
    print(f"Rows, this report, the pictures and a contact sheet a scene are in {output}")
    if faults:
        raise ValueError(f"{len(faults)} of {len(scenes)} scenes are not in the scores. " + " | ".join(faults))


def choose_methods(args: argparse.Namespace) -> dict[str, Method]:
    """Returns the methods to run, by name. Checkpoints are loaded here, so that a bad one stops before any work."""
    methods: dict[str, Method] = {}
    for name in args.methods:
        if name == "enfuse" and util_eval.enfuse_version() is None:
            print("enfuse is not installed: scoring without it")
            continue
        methods[name] = util_eval.BASELINES[name]
    networks: dict[str, Method] = {}
    for text in args.weights:
        name, path = util_eval.named_path(text, {**methods, **networks})
        util_eval.load_fuser(path, args.device)
        networks[name] = partial(util_eval.fuse_with_weights, weights=path, device=args.device)
    return networks | methods


def saved_results(results: list[str], methods: dict[str, Method]) -> dict[str, Path]:
    """Returns the folders of --results NAME=DIR by name."""
    folders: dict[str, Path] = {}
    for text in results:
        if "=" not in text:
            raise ValueError(f"--results must be NAME=DIR, got {text}")
        name, folder = util_eval.named_path(text, {**methods, **folders})
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of {name}'s pictures")
        folders[name] = Path(folder)
    return folders


def reference_folder(args: argparse.Namespace) -> Path | None:
    """Returns the folder of ground truth, if any."""
    if args.lpips and args.reference is None:
        raise ValueError("--lpips compares with a reference picture: give --reference DIR too")
    if args.lpips and importlib.util.find_spec("lpips") is None:
        raise ValueError(
            "--lpips needs the package lpips (pip install lpips), which downloads AlexNet at its first use"
        )
    if args.reference is None:
        return None
    if not Path(args.reference).is_dir():
        raise FileNotFoundError(f"{args.reference}: no such folder of reference pictures")
    return Path(args.reference)


def attempt(scene: EvalScene, **how) -> tuple[list[Row], str | None]:
    """Returns a scene's rows, or none and what is wrong with it: one bad scene does not lose the others' scores."""
    try:
        return util_eval.score_scene(scene, **how), None
    except (ValueError, OSError) as error:
        return [], f"{scene.name}: {error}"


def score_all(score: partial, scenes: list[EvalScene], jobs: int) -> tuple[list[Row], list[str]]:
    """Returns the rows of all scenes that could be scored, and a line for each that could not."""
    if jobs == 1:
        return collect(map(score, scenes), len(scenes))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    spawn = multiprocessing.get_context("spawn")  # PyTorch's threads do not survive a fork
    with ProcessPoolExecutor(jobs, spawn, set_up_worker, (threads,)) as pool:
        try:
            return collect(pool.map(score, scenes), len(scenes))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # scenes under way are finished
            raise


def collect(results, count: int) -> tuple[list[Row], list[str]]:
    rows, faults = [], []
    for found, fault in tqdm(results, total=count, desc="Scoring scenes", unit="scene"):
        rows += found
        if fault is not None:
            faults.append(fault)
    return rows, faults


def set_up_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then stops the others
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def describe(args: argparse.Namespace, rows: list[Row], references: tuple) -> str:
    """Returns what the scores were computed from and with, as Markdown."""
    scenes = {row["scene"]: row for row in rows}.values()
    counts = sorted({row["exposures"] for row in scenes})
    smallest, largest = (f(scenes, key=lambda row: row["width"] * row["height"]) for f in (min, max))
    sizes = dict.fromkeys(f"{row['width']}x{row['height']}" for row in (smallest, largest))
    versions = {
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "OpenCV": cv2.__version__,
        "scikit-image": skimage.__version__,
        "PyTorch": torch.__version__,
    }
    programs = [f"{name} {version}" for name, version in versions.items()]
    if "enfuse" in {row["method"] for row in rows}:
        programs.append(util_eval.enfuse_version())
    against = "all exposures of the scene" if args.full_stack else "the exposures that were fused"
    lines = [
        f"{len(scenes)} scenes of {Path(args.data).name}, {' to '.join(sizes)} pixels",
        f"scored against {against}: {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} a scene",
        "pictures as saved: 8 bit, read back; gray: Matlab's rgb2gray, rounded, in every column but colour and PSNR",
        *(f"{column.heading}: {column.definition}" for column in (*FIDELITY, *LOOK, *references)),
        "wins: scenes in which no other method has a higher MEF-SSIM",
        f"DeepFuse {git_sha()}, {', '.join(programs)}",
        f"`python {shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}`",
    ]
    return "\n".join(f"- {line}" for line in lines) + "\n"


def tables(rows: list[Row], references: tuple) -> str:
    """Returns the Markdown tables: fidelity, the scale profile, how the pictures look."""
    parts = [
        ("Fidelity to the exposures, mean over the scenes", util_eval.fidelity_table(rows)),
        ("MEF-SSIM by scale: halos and grey veils sit in the coarse ones", util_eval.mean_table(rows, PROFILE)),
        ("How the pictures look: no measure of quality by itself", util_eval.mean_table(rows, LOOK)),
    ]
    if references:
        parts.append(("Against the reference pictures", util_eval.mean_table(rows, references)))
    return "".join(f"{heading}:\n\n{table}\n\n" for heading, table in parts)


def write_csv(path: Path, rows: list[Row]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    with exit_on_error():
        main(get_eval_args())
