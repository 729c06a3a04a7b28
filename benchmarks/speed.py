"""Seconds a megapixel of every network, for fusing and for training: python benchmarks/speed.py [--rounds N].

Everything takes turns in each round, so that other work on the machine slows all of it alike; medians are printed, and
their ratio to OpenCV's MergeMertens on the same pair, or to the network's own forward and backward pass.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from models import ARCHITECTURES, fuse_model  # noqa: E402
from utils.util_fusion import Fuser  # noqa: E402
from utils.util_loss import MEFLoss  # noqa: E402

SIDE, CROP, BATCH = 1024, 256, 4


def training_pass(model: torch.nn.Module, shots: list[torch.Tensor]) -> tuple[float, float]:
    """Returns the seconds of the network's forward and backward pass, and of the loss's."""
    start = time.perf_counter()
    fused = model(*shots)
    forward = time.perf_counter() - start
    leaf = fused.detach().requires_grad_()
    start = time.perf_counter()
    MEFLoss()(leaf, shots).mean().backward()
    loss = time.perf_counter() - start
    start = time.perf_counter()
    fused.backward(leaf.grad)
    return forward + time.perf_counter() - start, loss


def main(rounds: int) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(2)]
    shots = list(torch.rand(2, BATCH, 1, CROP, CROP))
    models = {name: fuse_model(name).to(memory_format=torch.channels_last) for name in ARCHITECTURES}
    fusing: dict[str, Callable] = {name: Fuser(model).fuse for name, model in models.items()}
    fusing["MergeMertens"] = cv2.createMergeMertens().process
    seconds, passes, losses = defaultdict(list), defaultdict(list), defaultdict(list)
    for _ in range(rounds):
        for name, fuse in fusing.items():
            start = time.perf_counter()
            fuse(images)
            seconds[name].append((time.perf_counter() - start) / (SIDE**2 / 1e6))
        for name, model in models.items():
            network, loss = training_pass(model.train(), shots)
            passes[name].append(network)
            losses[name].append(loss)
            model.eval()
    mertens = np.median(seconds["MergeMertens"])
    print(f"{torch.get_num_threads()} threads, median of {rounds} rounds; a {SIDE}x{SIDE} pair, and {BATCH} of {CROP}")
    for name in fusing:
        median = np.median(seconds[name])
        line = f"{name:18} fusing {median:6.3f} s/MP, {median / mertens:6.1f} x MergeMertens"
        if name in models:
            share = np.median(losses[name]) / np.median(passes[name])
            line += f"; the MEF loss costs {share:.2f} of the network's forward and backward pass"
        print(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args().rounds)
