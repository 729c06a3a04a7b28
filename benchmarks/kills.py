"""Kills trainings (SIGKILL) at random moments and resumes them: python benchmarks/kills.py [--kills 50].

Goes on until --kills kills have hit a run inside an epoch, after at least one new step. Prints the number of all kills,
and whether every run that was resumed to its end equals the unbroken run bit for bit.
"""

import argparse
import contextlib
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import run_train  # noqa: E402
from configs import get_train_args  # noqa: E402

OPTIONS = (
    f"--image_path {ROOT}/data_test --model DeepFuse_3x3 --crop_size 32 --train_num 24 --batch_size 2 --num_epochs 6 "
    "--lr 1e-3 --ema 0.9 --device cpu --save_every 0 --no-output"
)


def train(folder: Path) -> None:
    """Starts the run of this folder, or resumes it."""
    torch.set_num_threads(1)
    run_train.sample_pair = list  # saves time: its picture is not compared
    resumed = ["--resume_path", str(folder)] if (folder / "checkpoints" / "last.pth").exists() else []
    if not resumed:
        shutil.rmtree(folder, ignore_errors=True)  # killed before the first step
    new = [*OPTIONS.split(), "--runs_path", str(folder.parent), "--run_name", folder.name]
    with contextlib.suppress(ValueError):  # it had finished when it was killed
        run_train.main(get_train_args([*resumed, "--no-output"] if resumed else new))


def state(folder: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors to compare two runs by: weights, their average, the optimizer's state, the best weights."""
    last, best = (torch.load(folder / "checkpoints" / name, weights_only=True) for name in ("last.pth", "best.pth"))
    moments = {f"{i}.{name}": value for i, own in last["optimizer"]["state"].items() for name, value in own.items()}
    numbers = {name: torch.tensor(last[name]) for name in ("epoch", "batch", "step", "best_loss", "loss")}
    return {
        f"{kind}.{name}": value
        for kind, values in (("raw", last["raw"]), ("average", last["model"]), ("best", best["model"]))
        for name, value in values.items()
    } | (moments | numbers)


def progress(folder: Path) -> tuple[int, int]:
    """Returns the steps in the run's last checkpoint: all, and those of its unfinished epoch."""
    path = folder / "checkpoints" / "last.pth"
    last = torch.load(path, weights_only=True) if path.exists() else {"step": 0, "batch": 0}
    return last["step"], last["batch"]


def run_until(child: multiprocessing.Process, path: Path, saves: int, share: float) -> None:
    """Waits until the child has written `path` `saves` times, then for this share of the time between two saves."""

    def stamp() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    seen = stamp()
    start = last = time.perf_counter()
    while child.is_alive() and saves:
        child.join(0.002)
        if stamp() != seen:
            seen, saves = stamp(), saves - 1
            start, last = last, time.perf_counter()
    child.join(share * (last - start))


def main(kills: int) -> None:
    fork = multiprocessing.get_context("fork")  # a child need not import PyTorch
    rng, killed, inside, runs = random.Random(0), 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        unbroken, folder = Path(name, "unbroken"), Path(name, "killed")
        child = fork.Process(target=train, args=(unbroken,))
        child.start()
        child.join()
        expected = state(unbroken)
        while True:
            before, _ = progress(folder)
            child = fork.Process(target=train, args=(folder,))
            child.start()
            run_until(child, folder / "checkpoints" / "last.pth", rng.randint(1, 6), rng.random())
            if child.is_alive():
                child.kill()
                child.join()
                step, batch = progress(folder)
                killed, inside = killed + 1, inside + (batch > 0 and step > before)
                continue
            found = state(folder)
            if not all(torch.equal(value, found[key]) for key, value in expected.items()):
                raise SystemExit(f"after {killed} kills the resumed run differs from the unbroken one")
            runs += 1
            shutil.rmtree(folder)
            print(
                f"{killed} kills, {inside} of them inside an epoch; {runs} runs to the end, equal to the unbroken one"
            )
            if inside >= kills:
                return


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    main(parser.parse_args().kills)
