"""How well --deghost removes motion whose truth is known: python benchmarks/ghosts.py [FOLDER].

Things of several sizes move through each scene of FOLDER (data_test): regions of the scene itself and cut-outs of other
scenes; the first moves over clipped ground, if there is any. The truth is the stack in which they stand still where the
reference shows them. MEF-SSIM is against the truth's exposures. The error, in levels of 255, is the distance from the
same method's picture of the truth, over the pixels where anything moves. The last lines are the loss of MEF-SSIM where
nothing was added, and where nothing moves.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from utils.evaluation.metric import matlab_gray, mef_ssim  # noqa: E402
from utils.evaluation.scoring import enfuse, enfuse_version, mertens  # noqa: E402
from utils.fusing.fusion import Fuser  # noqa: E402
from utils.pictures.image import read_image, write_image  # noqa: E402
from utils.pictures.scenes import find_scenes  # noqa: E402
from utils.stack.ghost import remove_ghosts  # noqa: E402

THINGS = 3  # per scene
SIZES = 0.06, 0.25  # their width, as a share of the picture's height
DOG = np.array(  # outline of the dog in data_test/courtyard, (x, y) in pixels
    [(39, 241), (52, 244), (65, 236), (82, 241), (96, 243), (105, 253), (109, 267), (130, 287), (127, 294), (116, 291)]
    + [(102, 275), (88, 278), (103, 295), (98, 299), (90, 296), (75, 275), (53, 266), (47, 262), (47, 251), (40, 244)]
)


class Thing:
    """Something that moves: its looks in each shot (K, h, w, 3), mask (h, w, 1), and place (x, y) in each shot."""

    def __init__(self, looks: np.ndarray, mask: np.ndarray, places: list[tuple[int, int]]):
        self.looks, self.mask, self.places = looks, mask, places

    def box(self, shot: int) -> tuple[slice, slice]:
        (x, y), (height, width) = self.places[shot], self.mask.shape[:2]
        return slice(y, y + height), slice(x, x + width)


def with_things(stack: list[np.ndarray], things: list[Thing], reference: int | None = None) -> list[np.ndarray]:
    """Returns the stack with the things added, at each shot's places, or in all shots at those of `reference`."""
    result = []
    for shot, image in enumerate(stack):
        image = image.copy()
        for thing in things:
            here = image[thing.box(shot if reference is None else reference)]
            here[...] = np.rint(here + thing.mask * (thing.looks[shot].astype(float) - here))
        result.append(image)
    return result


def passed(stack: list[np.ndarray], things: list[Thing]) -> np.ndarray:
    """Returns the pixels (H, W) that a thing covers in any shot."""
    region = np.zeros(stack[0].shape[:2], bool)
    for thing in things:
        for shot in range(len(stack)):
            region[thing.box(shot)] |= thing.mask[..., 0] > 0
    return region


def draw_things(stack: list[np.ndarray], others: list[np.ndarray], rng: np.random.Generator) -> list[Thing]:
    """Returns things that move through a stack; `others` are well exposed shots of other scenes to cut them out of."""
    height, width = stack[0].shape[:2]
    middle = min(stack, key=lambda image: abs(image.mean() - 118))
    clipped = middle.max(2) > 250
    things = []
    for number in range(THINGS):
        w = int(height * rng.uniform(*SIZES))
        h = min(int(w * rng.uniform(1, 1.8)), height - 2)
        if number == 1 and others:
            other = others[rng.integers(len(others))]
            grown = max(1, h / other.shape[0], w / other.shape[1])
            other = cv2.resize(other, None, fx=grown, fy=grown)
            cut = other[draw_box(rng, *other.shape[:2], h, w)]
            looks = np.stack([exposed(cut, middle, image) for image in stack])
        else:
            own = draw_box(rng, height, width, h, w)
            looks = np.stack([image[own][:, ::-1] for image in stack])
        starts = [draw_box(rng, height, width, h, w) for _ in range(20)]
        y, x = max(starts, key=lambda box: clipped[box].mean() * (number == 0))
        step = w * rng.uniform(0.15, 1.2) * rng.choice([-1, 1])
        places = []
        for shot in range(len(stack)):
            at = abs(x.start + step * shot) % (2 * (width - w))  # there and back
            fall = rng.normal() * h / 10
            places.append((int(min(at, 2 * (width - w) - at)), int(np.clip(y.start + fall, 0, height - h))))
        things.append(Thing(looks, draw_mask(rng, h, w), places))
    return things


def draw_box(rng: np.random.Generator, height: int, width: int, h: int, w: int) -> tuple[slice, slice]:
    """Returns rows and columns of h x w pixels somewhere in a picture."""
    y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
    return slice(y, y + h), slice(x, x + w)


def draw_mask(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Returns a rounded, uneven shape (h, w, 1) in [0, 1], soft at its edge."""
    y, x = np.mgrid[:h, :w]
    y, x = (y - h / 2 + 0.5) / (h / 2), (x - w / 2 + 0.5) / (w / 2)
    angle = np.arctan2(y, x)
    edge = 0.8 + sum(0.09 * np.sin(lobes * angle + rng.uniform(0, 6)) for lobes in (3, 5))
    return np.clip((edge - np.hypot(y, x)) * min(h, w) / 4 + 0.5, 0, 1)[..., None]


def exposed(cut: np.ndarray, middle: np.ndarray, shot: np.ndarray) -> np.ndarray:
    """Returns a cut-out with its levels mapped from the middle shot to `shot`, by the median of each level."""
    result = np.empty_like(cut)
    for c in range(3):
        levels = [level for level in range(256) if (middle[..., c] == level).any()]
        medians = [np.median(shot[..., c][middle[..., c] == level]) for level in levels]
        result[..., c] = np.rint(np.maximum.accumulate(np.interp(range(256), levels, medians)))[cut[..., c]]
    return result


def score(fused: np.ndarray, stack: list[np.ndarray]) -> float:
    return mef_ssim(matlab_gray(fused), np.stack([matlab_gray(image) for image in stack]))


def picture(fuser: Fuser) -> np.ndarray:
    """Returns the courtyard of data_test with a second dog that moves, fused without and with --deghost."""
    scene = next(scene for scene in find_scenes(ROOT / "data_test")[0] if scene.name == "courtyard")
    stack = [read_image(path) for path in scene.paths]
    (left, top), (right, bottom) = DOG.min(0) - 4, DOG.max(0) + 5
    mask = cv2.fillPoly(np.zeros((bottom - top, right - left), np.uint8), [DOG - (left, top)], 255)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.8)[..., None] / 255
    dogs = np.stack([image[top:bottom, left:right] for image in stack])
    moved = with_things(stack, [Thing(dogs[:, :, ::-1], mask[:, ::-1], [(345, 206), (145, 228), (245, 218)])])
    return np.hstack([fuser.fuse(shots)[60:, :508] for shots in (moved, remove_ghosts(moved)[0])])


def main(folder: Path, weights: str, moving: list[str]) -> None:
    fuser = Fuser.from_checkpoint(weights)
    methods = {"nothing done": fuser.fuse, "MergeMertens": mertens, "--deghost": fuser.fuse}
    if enfuse_version():
        methods["enfuse"] = enfuse
    scenes = [(scene.name, [read_image(path) for path in scene.paths]) for scene in find_scenes(folder)[0]]
    middles = [min(stack, key=lambda image: abs(image.mean() - 118)) for _, stack in scenes]
    scores, errors, lost = defaultdict(list), defaultdict(list), []
    for number, (name, stack) in enumerate(scenes):
        things = draw_things(stack, middles[:number] + middles[number + 1 :], np.random.default_rng(number))
        moved, region = with_things(stack, things), passed(stack, things)
        cleaned, reference = remove_ghosts(moved)
        truth = with_things(stack, things, reference)
        for method, fuse in methods.items():
            fused = fuse(cleaned if method == "--deghost" else moved)
            goal = fuse(truth)
            scores[method].append(score(fused, truth))
            errors[method].append(np.abs(fused.astype(int) - goal)[region].mean())
            if method == "--deghost":
                scores["the truth fused"].append(score(goal, truth))
                errors["the truth fused"].append(0.0)
        lost.append(score(fuser.fuse(stack), stack) - score(fuser.fuse(remove_ghosts(stack)[0]), stack))
        before, after, best = (scores[method][-1] for method in ("nothing done", "--deghost", "the truth fused"))
        print(
            f"{name}: reference {reference} of {len(stack)}, MEF-SSIM {before:.4f} -> {after:.4f} of {best:.4f}, "
            f"error {errors['nothing done'][-1]:.2f} -> {errors['--deghost'][-1]:.2f}; unmoved, {lost[-1]:.4f} lost"
        )
    print("\n| | MEF-SSIM | error where something moves |\n|---|---:|---:|")
    for method in ("nothing done", *(set(methods) - {"nothing done", "--deghost"}), "--deghost", "the truth fused"):
        print(f"| {method} | {np.mean(scores[method]):.4f} | {np.mean(errors[method]):.2f} |")
    before, after, best = (np.mean(scores[method]) for method in ("nothing done", "--deghost", "the truth fused"))
    print(f"\n{(after - before) / (best - before):.0%} of the MEF-SSIM that motion costs comes back.")
    print(f"Where nothing was added {np.mean(lost):.4f} of MEF-SSIM is lost, at most {max(lost):.4f}.")
    lost = [loss for (name, _), loss in zip(scenes, lost, strict=True) if name not in moving]
    print(f"Where nothing moves either, {np.mean(lost):.4f} is lost, at most {max(lost):.4f}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "data_test")
    parser.add_argument("--weights", default=f"{ROOT}/runs/pretrained/deepfuse.pth")
    parser.add_argument(
        "--moving", nargs="+", default=[], help="scenes in which things moved before anything was added"
    )
    parser.add_argument("--picture", metavar="FILE", help="write an example of data_test instead, before and after")
    args = parser.parse_args()
    if args.picture:
        write_image(args.picture, picture(Fuser.from_checkpoint(args.weights)))
    else:
        main(args.folder, args.weights, args.moving)
