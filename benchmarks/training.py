"""Speed of training: python benchmarks/training.py [--compare [--compile]] TRAINING'S OPTIONS; or with --large alone.

Prints images per second of training, of the same steps on samples in memory, of the loader alone, and of the
predecessor's loading at its start; the share of each part in the time of training; with --compare, the speed of other
ways to compute the same steps, with --compile that of torch.compile too. The measurements alternate; medians are
printed. --large makes folders of 118,000 photographs and 5,000 brackets (links to a few files), and prints the time and
memory to start a training on them. --cpu_time counts CPU seconds, for a busy machine, one thread and no workers.
"""

import argparse
import copy
import functools
import itertools
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import run_train  # noqa: E402
from configs import get_train_args  # noqa: E402
from utils.device import device_on, seed_everything  # noqa: E402
from utils.errors import exit_on_error  # noqa: E402
from utils.pictures.image import list_images  # noqa: E402
from utils.training import dataset as data  # noqa: E402
from utils.training import train  # noqa: E402


class Laps:
    """Adds up the seconds spent in each part of a training."""

    def __init__(self, clock: Callable[[], float], device: torch.device):
        self.clock, self.device = clock, device
        self.seconds = dict.fromkeys(("loader", "network", "loss", "optimizer"), 0.0)
        self.last = clock()

    def __call__(self, name: str) -> None:
        """Adds the time since the last call to this part."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        now = self.clock()
        self.seconds[name] += now - self.last
        self.last = now


def shares(training: train.Training, batches: Iterable, speed: Callable, laps: Laps) -> dict[str, float]:
    """Returns the share of each part in the time of training; network and loss include their backward passes."""
    fuse, step = training.model.fuse, training.optimizer.step

    def timed_fuse(*args):
        fused = fuse(*args)
        laps("network")
        fused.register_hook(lambda gradient: laps("loss"))
        return fused

    def timed_step():
        laps("network")  # its backward pass, after that of the loss; and the norm of the gradient
        step()
        laps("optimizer")

    class Timed:
        def __len__(self) -> int:
            return len(batches)

        def __iter__(self) -> Iterator:
            for batch in batches:
                laps("loader")
                yield batch
                laps("optimizer")  # the average of the weights

    training.model.fuse, training.optimizer.step = timed_fuse, timed_step
    laps.last = laps.clock()
    speed(training, Timed())
    training.model.fuse, training.optimizer.step = fuse, step
    return {name: seconds / sum(laps.seconds.values()) for name, seconds in laps.seconds.items()}


def predecessors_way(paths: Iterable[str], count: int) -> None:
    """Loads images as the predecessor does at its start: each is decoded twice, resized, and kept in memory."""
    kept = []
    for path in itertools.islice(itertools.cycle(paths), count):
        kept += [cv2.resize(cv2.imread(str(path)), (1200, 800)) for _ in range(2)]


def medians(ways: dict[str, Callable[[], None]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Returns the median seconds of each way; the ways alternate."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = clock()
            way()
            taken[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def processor() -> str:
    """Returns the processor's name."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main(own: argparse.Namespace, argv: list[str]) -> None:
    args = get_train_args(argv)
    seed_everything(args.seed)
    device = device_on(args.device)
    clock = time.process_time if own.cpu_time else time.perf_counter
    objective = run_train.objective_of(args)
    model = run_train.network(args, objective).to(device)
    samples, _, described = objective.data(args, model, lambda *_: None)
    batches = run_train.loader(args, samples, device)
    batches.sampler.batches = own.steps
    loss = objective.loss(args)

    def speed(training: train.Training, batches: Iterable, amp: bool = args.amp) -> None:
        train.train_one_epoch(training, batches, loss, lambda done: args.lr, args.clip_grad, amp)

    training = train.new_training(model, args.lr, args.ema)
    memory = list(batches)
    speed(training, memory)  # warm
    paths = [str(path) for folder in args.photo_path or args.image_path for path in list_images(folder, recursive=True)]
    images = own.steps * args.batch_size
    ways = {
        "training": lambda: speed(training, batches),
        "the same steps on samples in memory": lambda: speed(training, memory),
        "loader alone": lambda: list(batches),
        "predecessor's start: decoded twice, kept whole": lambda: predecessors_way(paths, images),
    }
    seconds = medians(ways, own.rounds, clock)
    print(f"{model.name} on {described}; batches of {args.batch_size}, crop {args.crop_size}")
    threads = f"{torch.get_num_threads()} threads, {args.num_workers} workers"
    print(f"{processor()}, {device}, {threads}; {'CPU' if own.cpu_time else 'wall'} time, {own.rounds} rounds\n")
    print("| | images per second |\n|---|---:|")
    for name, taken in seconds.items():
        print(f"| {name} | {images / taken:.2f} |")
    reached = seconds["the same steps on samples in memory"] / seconds["training"]
    spent = shares(training, batches, speed, Laps(clock, device))
    print(f"\nTraining reaches {reached:.0%} of the steps in memory. Its time: ", end="")
    print(", ".join(f"{name} {share:.1%}" for name, share in spent.items()))
    if own.compare:
        compare(training, functools.partial(speed, batches=memory), own, clock)


def compare(training: train.Training, speed: Callable, own: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Prints the speed of other ways to compute the same steps, relative to float32 in channels-last layout."""
    other = copy.deepcopy(training)
    for average_or_model in (other.model, other.average):
        if average_or_model is not None:
            average_or_model.to(memory_format=torch.contiguous_format)
    fuse = training.model.fuse
    compiled = torch.compile(fuse)

    def with_compiler() -> None:
        training.model.fuse = compiled
        speed(training, amp=False)
        training.model.fuse = fuse

    ways = {
        "float32, channels last": lambda: speed(training, amp=False),
        "float32, channels first": lambda: speed(other, amp=False),
        "bfloat16 (--amp), channels last": lambda: speed(training, amp=True),
    }
    if own.compile:
        ways["float32, channels last, torch.compile"] = with_compiler
    first = medians(ways, 1, time.perf_counter)
    seconds = medians(ways, own.rounds, clock)
    usual = seconds["float32, channels last"]
    print("\n| the same steps in memory | times as fast | seconds of the first time |\n|---|---:|---:|")
    for name, taken in seconds.items():
        print(f"| {name} | {usual / taken:.2f} | {first[name]:.1f} |")


def large(photographs: int, scenes: int, clock: Callable[[], float]) -> None:
    """Prints the time and memory to start a training on this number of photographs, and on this number of scenes."""

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # GB

    rows = [("PyTorch imported", 0.0, peak())]
    with tempfile.TemporaryDirectory() as name:
        shots = []
        for path in sorted((ROOT / "data_test/courtyard").iterdir()):
            shots.append(Path(name, path.name))
            cv2.imwrite(str(shots[-1]), cv2.resize(cv2.imread(str(path)), (256, 256)))
        folders = [Path(name, kind) for kind in ("photographs", "brackets")]
        for i in range(photographs):
            path = folders[0] / f"{i // 1000:03}" / f"{i:012}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(shots[0])
        for i in range(scenes):
            (folders[1] / f"{i:05}").mkdir(parents=True)
            for path in shots:
                (folders[1] / f"{i:05}" / path.name).symlink_to(path)
        start = clock()
        found = data.find_photographs([folders[0]])
        data.Photographs(found, 256)[data.Draw(0, 0, 0)]
        rows += [(f"{len(found):,} photographs", clock() - start, peak())]
        start = clock()
        found = data.read_brackets([folders[1]])
        data.BracketStacks(found, 256)[data.Draw(0, 0, 0)]
        count = sum(len(bracket.paths) for bracket in found)
        rows += [(f"{len(found):,} brackets, {count:,} shots of 256x256", clock() - start, peak())]
    print(f"{processor()}\n\n| | seconds until the first sample | peak memory, GB |\n|---|---:|---:|")
    for what, seconds, memory in rows:
        print(f"| {what} | {seconds:.1f} | {memory:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu_time", action="store_true")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--large", action="store_true")
    own, rest = parser.parse_known_args()
    with exit_on_error():
        if own.large:
            large(118_000, 5_000, time.process_time if own.cpu_time else time.perf_counter)
        else:
            main(own, rest)
