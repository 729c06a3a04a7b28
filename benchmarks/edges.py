"""What a picture shows at 100 %, beside MergeMertens: python benchmarks/edges.py FOLDER [--weights FILE] [--scores].

Per scene (a folder of shots) the outer shots and all shots are fused at their own size. Printed are, in grey levels:

- rim: by how much a smooth area is brighter or darker 3 to 10 pixels from a strong edge than 40 to 100 pixels away.
  Only pixels are compared that all shots together show equally bright, within squares of CELL pixels. The mean of the
  squares, and what 9 in 10 of them are below.
- lights: the contrast of what is brighter than all around it within 21 pixels (white top-hat), of the strongest 1 in
  1,000 pixels.
- contrast: the mean of the bands of a Laplacian pyramid, 1, 2, 4 ... 64 pixels, times MergeMertens'.
- with --scores: MEF-SSIM and -lum against all shots.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from configs import shipped_weights
from utils.evaluation.metric import matlab_gray, mef_ssim, mef_ssim_lum
from utils.evaluation.scoring import mertens
from utils.fusing.fusion import Fuser
from utils.pictures.image import list_images, read_image
from utils.pictures.metadata import read_metadata
from utils.stack import METHODS
from utils.stack.align import align_exposures

CELL = 256  # pixels, side of the squares in which near and far pixels are compared
LEVELS = 6  # grey levels of the shots' sum that count as equally bright
ENOUGH = 300  # pixels that a square must have of both kinds
SCALES = 7  # 1 to 64 pixels
STEEP = 24  # grey levels per pixel, of the shots' mean: a strong edge


def rims(fused: np.ndarray, stack: np.ndarray) -> np.ndarray:
    """Returns by how many grey levels fused (H, W) changes towards strong edges, in each square; stack is (K, H, W)."""
    light = stack.sum(0, dtype=np.float32)
    mean = cv2.GaussianBlur(light / len(stack), (0, 0), 1)
    steep = np.hypot(cv2.Sobel(mean, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(mean, cv2.CV_32F, 0, 1) / 8) > STEEP / 4
    away = cv2.distanceTransform((~steep).astype(np.uint8), cv2.DIST_L2, 5)
    flat = cv2.GaussianBlur(light * light, (0, 0), 3) - cv2.GaussianBlur(light, (0, 0), 3) ** 2 < 400 * len(stack)
    near, far = flat & (away > 3) & (away < 10), flat & (away > 40) & (away < 100)
    key = (light / LEVELS).astype(int)
    found = []
    for top in range(0, light.shape[0], CELL):
        for left in range(0, light.shape[1], CELL):
            part = np.s_[top : top + CELL, left : left + CELL]
            sums, counts = [], []
            for chosen in (near[part], far[part]):
                counts.append(np.bincount(key[part][chosen], minlength=key.max() + 1))
                sums.append(np.bincount(key[part][chosen], fused[part][chosen], minlength=key.max() + 1))
            shared = np.minimum(*counts)
            if shared.sum() >= ENOUGH:
                both = shared > 0
                change = sums[0][both] / counts[0][both] - sums[1][both] / counts[1][both]
                found.append(np.average(change, weights=shared[both]))
    return np.array(found)


def lights(gray: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Returns the white top-hat (H, W) of a picture (H, W), or its values at `where`."""
    hat = cv2.morphologyEx(gray, cv2.MORPH_TOPHAT, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21)))
    return hat if where is None else hat[where]


def contrasts(gray: np.ndarray) -> np.ndarray:
    """Returns the mean contrast (SCALES,) of the bands of a picture's (H, W) Laplacian pyramid, finest first."""
    found, gray = [], gray.astype(np.float32)
    for _ in range(SCALES):
        coarser = cv2.pyrDown(gray)
        found.append(np.abs(gray - cv2.pyrUp(coarser, dstsize=gray.shape[::-1])).mean())
        gray = coarser
    return np.array(found)


def decided(path: str, pixels: int | None):
    """Returns the fusing function of a file of weights, which decides on so many pixels, if they are given."""
    fuser = Fuser.from_checkpoint(path)
    if pixels:
        fuser.network.decision_pixels, fuser.network.growth = pixels, 1
    return fuser.fuse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of scenes: a folder of shots per scene")
    parser.add_argument("--weights", nargs="+", default=[shipped_weights("cpu")])
    parser.add_argument("--align", choices=METHODS, help="hand-held scenes")
    parser.add_argument("--pixels", type=int, nargs="+", default=[None], help="decide on at most so many, each in turn")
    parser.add_argument("--scores", action="store_true", help="minutes per scene")
    args = parser.parse_args()
    methods = {"MergeMertens": lambda shots, stops: mertens(shots)} | {
        f"{path} {pixels or ''}".strip(): decided(path, pixels) for path in args.weights for pixels in args.pixels
    }
    for folder in sorted(path for path in Path(args.data).iterdir() if path.is_dir()):
        paths = list_images(folder)
        shots, noted = [read_image(path) for path in paths], [read_metadata(path).stops for path in paths]
        order = sorted(range(len(shots)), key=lambda k: shots[k].mean())
        shots, noted = [shots[k] for k in order], [noted[k] for k in order]
        if args.align:
            shots = align_exposures(shots, args.align)
        stack = np.stack([matlab_gray(shot) for shot in shots])
        hat = lights(stack.mean(0, dtype=np.float32))
        bright = hat > np.percentile(hat[::4, ::4], 99.9)
        for kind, part in {"pair": slice(None, None, len(shots) - 1), "all": slice(None)}.items():
            stops = None if None in noted[part] else noted[part]
            found: list[np.ndarray] = []
            for name, method in methods.items():
                fused = matlab_gray(method(shots[part], stops))
                change = np.abs(rims(fused, stack.astype(np.float32)))
                line = f"{folder.name} {kind} {name}: rim {change.mean():.1f}, 9 in 10 {np.percentile(change, 90):.1f}"
                line += f" ({len(change)} squares), lights {lights(fused, bright).mean():.0f}"
                found.append(contrasts(fused))
                line += f", contrast {' '.join(f'{ratio:.2f}' for ratio in found[-1] / found[0])}"
                if args.scores:
                    line += f", MEF-SSIM {mef_ssim(fused, stack):.4f}, -lum {mef_ssim_lum(fused, stack):.4f}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
