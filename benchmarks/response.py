"""Virtual exposures against real shots, lights, noise, steps and overlapping views: what merging before fusing gives.

    python benchmarks/response.py virtual ../shared/data/brackets/dev
    python benchmarks/response.py lights ../shared/data/brackets/dev runs/pretrained/dev_pairs.csv runs/pretrained/dev_pairs_wide.csv
    python benchmarks/response.py noise ../shared/data/brackets/dev runs/pretrained/dev_pairs_wide.csv
    python benchmarks/response.py steps data_test/courtyard
    python benchmarks/response.py views ../shared/data/brackets/dev

Pictures are at most --width pixels wide. Figures are in levels of 255, or shares.
"""  # noqa: E501

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from utils.fusing.fusion import Fuser
from utils.fusing.network import DecidingNetwork
from utils.pictures.image import list_images, read_image
from utils.pictures.pixels import luma, shrink
from utils.pictures.scenes import read_pairs
from utils.stack.response import fit_response


def stack_of(folder: Path, width: int) -> list[np.ndarray]:
    """Returns the shots of a scene, (H, W, 3) BGR uint8, the darkest first."""
    return sorted((shrink(read_image(path), width=width) for path in list_images(folder)), key=np.mean)


def pairs_of(args: argparse.Namespace) -> Iterator[tuple[str, list[np.ndarray]]]:
    for table in args.tables:
        for scene in read_pairs(args.folder, table):
            yield scene.name, [shrink(read_image(path), width=args.width) for path in scene.paths]


def virtual(args: argparse.Namespace) -> list[tuple]:
    """Returns by scene the error of an exposure made of two shots against the real one in between.

    The two have mean levels nearest to 40 and 200. The exposure is chosen so that both are equally bright on average;
    compared are pixels that the real shot exposes well. a, b: sum of both; the last: where the bright shot is clipped.
    """
    rows = []
    for folder in sorted(path for path in args.folder.iterdir() if path.is_dir()):
        shots = stack_of(folder, args.width)
        means = [shot.mean() for shot in shots]
        under, over = (int(np.argmin(np.abs(np.subtract(means, level)))) for level in (40, 200))
        under, over = (under, over) if over - under > 1 else (0, len(shots) - 1)
        if over - under < 2:
            continue
        middle = min(range(under + 1, over), key=lambda k: abs(means[k] - (means[under] + means[over]) / 2))
        pair, real = [shots[under], shots[over]], shots[middle] / np.float32(255)
        response = fit_response(pair)
        radiance = response.merge(pair)
        low, high = -20.0, 20.0
        for _ in range(25):
            stop = (low + high) / 2
            darker = response.render(radiance, 2.0**stop).mean() < real.mean()
            low, high = (stop, high) if darker else (low, stop)
        made = response.render(radiance, 2.0**stop)
        seen = (shots[middle].max(2) < 250) & (shots[middle].min(2) > 4)
        clipped = seen & (shots[over].max(2) >= 250)
        lab, expected = (cv2.cvtColor(x, cv2.COLOR_BGR2LAB) for x in (made, real))
        colour = np.abs(lab - expected)[..., 1:].sum(2)
        luminance = 255 * np.abs(luma(made) - luma(real))
        rows.append((folder.name, colour[seen].mean(), luminance[seen].mean(), mean(colour[clipped])))
    return [("scene", "a, b", "luminance", "a, b where clipped"), *rows]


def lights(args: argparse.Namespace) -> list[tuple]:
    """Returns by pair how ours shows places where the bright shot is clipped and the dark one's luma is 64 to 220."""
    fuser, rows = Fuser.from_checkpoint(args.weights), []
    for name, pair in pairs_of(args):
        dark, bright = sorted(pair, key=np.mean)
        fused = fuser.fuse(pair)
        own, clipped, ours = (luma(x) * 255 for x in (dark, bright, fused))
        only = (clipped >= 250) & (own >= 64) & (own <= 220)
        if only.sum() < 200:
            continue
        saturation = [mean(np.ptp(x[only].astype(float), 1) / np.maximum(x[only].max(1), 1)) for x in (fused, dark)]
        rows.append((name, mean((ours - own)[only]), saturation[0] / saturation[1], mean((ours > 240)[only])))
    return [("pair", "luma over the dark shot's", "saturation, of its", "share above 240"), *rows]


def noise(args: argparse.Namespace) -> list[tuple]:
    """Returns by pair the noise that sigma 2 in both shots gives the picture where the bright shot is well exposed."""
    fuser, rows = Fuser.from_checkpoint(args.weights), []
    for name, pair in pairs_of(args):
        rng = np.random.default_rng(0)
        noisy = [np.clip(np.rint(x + rng.normal(0, 2, x.shape)), 0, 255).astype(np.uint8) for x in pair]
        dark, bright = sorted(pair, key=np.mean)
        place = (dark.max(2) < 0.15 * 255) & (bright.max(2) < 0.85 * 255) & (bright.min(2) > 8)
        rows.append((name, (fuser.fuse(noisy).astype(float) - fuser.fuse(pair))[place].std()))
    return [("pair", "noise"), *rows]


def steps(args: argparse.Namespace) -> list[tuple]:
    """Returns for gaps from .5 to 8 stops how much the picture changes per tenth of a stop, and by its neighbours.

    The darker shot is the brighter one of a scene, exposed less by its own curve.
    """
    fuser, shots = Fuser.from_checkpoint(args.weights), stack_of(args.folder, args.width)
    response = fit_response(shots)
    radiance = response.merge(shots)
    gaps = np.arange(0.5, 8.05, 0.1)
    fused = []
    for gap in gaps:
        pair = [response.render(radiance, 2.0 ** (max(response.stops) - stop)) for stop in (gap, 0)]
        fused.append(fuser.fuse([np.rint(x * 65535).astype(np.uint16) for x in pair]) / 257)
    change = np.array([np.abs(b - a).mean() for a, b in zip(fused, fused[1:], strict=False)])
    around = (change[:-2] + change[2:]) / 2
    return [
        ("gap, stops", "mean change per 0.1 stop", "times its neighbours"),
        *((f"{gap:.1f}", c, c / a) for gap, c, a in zip(gaps[1:-2], change[1:-1], around, strict=True)),
    ]


def views(args: argparse.Namespace) -> list[tuple]:
    """Returns by scene by how much the left and the right 70 % differ where both show the same.

    Each is fused alone, and both with one look.
    """
    network, rows = Fuser.from_checkpoint(args.weights).network, []
    assert isinstance(network, DecidingNetwork)
    for folder in sorted(path for path in args.folder.iterdir() if path.is_dir()):
        shots = stack_of(folder, args.width)
        width = shots[0].shape[1]
        cut = round(0.7 * width)
        both = [[x[:, part] for x in shots] for part in (slice(0, cut), slice(width - cut, width))]
        decisions = network.decide_together([network.small_copy(view) for view in both])
        row: list = [folder.name]
        for one, other in (
            [network.fuse(view).astype(float) for view in both],
            [decision.develop(view).astype(float) for decision, view in zip(decisions, both, strict=True)],
        ):
            difference = one[:, width - cut :] - other[:, : 2 * cut - width]
            row += [np.abs(difference).mean(), abs(difference.mean())]
        rows.append(tuple(row))
    return [("scene", "difference", "of it bias", "with one look", "of it bias"), *rows]


def mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=["virtual", "lights", "noise", "steps", "views"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("tables", nargs="*", type=Path)
    parser.add_argument("--weights", default="runs/pretrained/deepfuse.onnx")
    parser.add_argument("--width", type=int)
    args = parser.parse_args()
    if args.figure == "steps" and len(list_images(args.folder)) < 2:
        parser.error(f"steps takes the folder of one scene, and {args.folder} has fewer than two pictures")
    args.width = args.width or (400 if args.figure == "virtual" else 800)
    head, *rows = globals()[args.figure](args)
    for row in (head, *rows):
        print("  ".join(f"{x:<34}" if isinstance(x, str) else f"{x:<26.3f}" for x in row), flush=True)
    figures = np.array([row[1:] for row in rows], float)
    for name, of in (("mean", np.nanmean), ("median", np.nanmedian), ("largest", np.nanmax)):
        print(f"{name:<34}", "  ".join(f"{x:<26.3f}" for x in of(figures, 0)))
