"""Speed of training: python benchmarks/training.py @runs/pretrained/photo.args [--steps N].

Prints images a second of the loader alone, of the same steps on batches that are in memory already, and of both
together; the share of loader, network, loss and optimizer; and what the predecessor's way of loading takes.
"""

import argparse
import contextlib
import functools
import itertools
import platform
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import run_train  # noqa: E402
from configs import get_train_args  # noqa: E402
from utils import util_train as train  # noqa: E402
from utils.util_device import device_on  # noqa: E402
from utils.util_loss import MEFLoss  # noqa: E402
from utils.utils import exit_on_error, seed_everything  # noqa: E402


class Clock:
    """Sums up the seconds spent in parts of the work, by their names."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start

    def timed(self, name: str, function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            with self.part(name):
                return function(*args, **kwargs)

        return wrapper


def predecessors_way(paths: list[str], count: int) -> float:
    """Returns images a second of what the predecessor does at its start: every image decoded twice, and resized."""
    start = time.perf_counter()
    for path in itertools.islice(itertools.cycle(paths), count):
        for _ in range(2):
            cv2.resize(cv2.imread(path), (1200, 800))
    return count / (time.perf_counter() - start)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--steps", type=int, default=10)
    own, rest = parser.parse_known_args(argv)
    args = get_train_args(rest)
    seed_everything(args.seed)
    device = device_on(args.device)
    objective = run_train.objective_of(args)
    model = run_train.network(args, objective).to(device)
    start = time.perf_counter()
    samples, _, described = objective.data(args, model, lambda *_: None)
    started = time.perf_counter() - start
    batches = run_train.loader(args, samples, device)
    clock, loss = Clock(), MEFLoss(args.scale_weights, args.lum_weight)
    loss.parts = clock.timed("loss", loss.parts)
    train.run_network = clock.timed("network", train.run_network)
    training = train.new_training(model, args.lr, args.ema)
    training.optimizer.step = clock.timed("optimizer", training.optimizer.step)
    criterion = functools.partial(objective.losses, loss=loss, amp=args.amp)
    images = own.steps * args.batch_size

    def speed(batches: Iterable) -> float:
        """Returns images a second of training on these batches."""
        return train.train_one_epoch(training, batches, criterion, lambda done: args.lr, args.clip_grad)[
            "images_per_second"
        ]

    def first(batches: Iterable) -> Iterable:
        return list(itertools.islice(batches, own.steps))

    memory = first(batches)
    speed(memory[:1])  # warm
    start = time.perf_counter()
    first(batches)
    loading = images / (time.perf_counter() - start)
    clock.seconds.clear()
    in_memory = speed(memory)
    parts = {name: seconds * in_memory / images for name, seconds in clock.seconds.items()}
    batches.sampler.batches = own.steps
    together = speed(batches)

    print(f"{model.name} on {described}")
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {args.num_workers} workers"
    )
    print(f"start-up {started:.1f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB at the peak")
    print("| | images a second |\n|---|---:|")
    print(f"| loader alone | {loading:.2f} |\n| steps on batches in memory | {in_memory:.2f} |")
    print(f"| training | {together:.2f} ({together / in_memory:.0%}) |")
    if hasattr(samples, "paths"):
        print(
            f"| predecessor's start: decoded twice, kept whole | {predecessors_way(list(samples.paths), images):.2f} |"
        )
    shown = ", ".join(f"{name} {share:.0%}" for name, share in parts.items())
    print(f"Of a step in memory: {shown}; the rest is the way back (backward) and the average.")


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])
